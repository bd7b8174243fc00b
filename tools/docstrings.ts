// Which public names say nothing about themselves: what entries export, the members of those classes and interfaces, and the
// properties of object types that are written out in a signature.
import ts from "typescript";

/** A public name without a comment. */
export interface Undocumented {
  readonly name: string;
  readonly file: string;
  /** From 1. */
  readonly line: number;
}

/**
 * Names without a comment, each once, by file and line. A member counts as documented by the member that it implements;
 * a property of a parameter by `@param parameter.property`, a property of a result by `@returns`; and the definition of
 * an operation, `addOp`, by the function that applies it, `add`.
 *
 * @param entries the files whose exports are public
 * @param options how they are compiled
 */
export function undocumented(entries: readonly string[], options: ts.CompilerOptions): Undocumented[] {
  const program = ts.createProgram(entries, { ...options, noEmit: true, incremental: false });
  const checker = program.getTypeChecker();
  const found = new Map<ts.Node, Undocumented>();
  const visited = new Set<ts.Node>();

  const says = (symbol: ts.Symbol): boolean =>
    symbol.getDocumentationComment(checker).length > 0 || symbol.getJsDocTags(checker).length > 0;

  /** In `Options & { to: string }` the property is that of Options, with a narrower type. */
  const narrowsDocumented = (member: ts.Declaration, symbol: ts.Symbol): boolean => {
    const intersection = member.parent.parent;
    if (!ts.isIntersectionTypeNode(intersection)) return false;
    const property = checker.getTypeFromTypeNode(intersection).getProperty(symbol.name);
    return property !== undefined && says(property);
  };

  const report = (node: ts.Node, name: string): void => {
    const file = node.getSourceFile();
    const { line } = file.getLineAndCharacterOfPosition(node.getStart());
    found.set(node, { name, file: file.fileName, line: line + 1 });
  };

  /** @param isTold whether the comment of the signature around the members tells of one of this name */
  const visitMembers = (
    members: readonly ts.Declaration[],
    name: string,
    isTold: (member: string) => boolean = () => false,
  ): void => {
    for (const member of members) {
      const own = ts.getNameOfDeclaration(member);
      const symbol = own && checker.getSymbolAtLocation(own);
      if (symbol === undefined || visited.has(member) || saysItself(member, symbol)) continue;
      visited.add(member);
      if (!says(symbol) && !isTold(symbol.name) && !narrowsDocumented(member, symbol))
        report(member, `${name}.${symbol.name}`);
      visitSignature(member, `${name}.${symbol.name}`);
    }
  };

  const visitSignature = (node: ts.Node, name: string): void => {
    if (ts.isPropertySignature(node) || ts.isPropertyDeclaration(node)) {
      if (node.type === undefined) return;
      if (ts.isFunctionTypeNode(node.type)) visitCall(node.type, node, name);
      else for (const { members } of objectTypes(node.type)) visitMembers(members, name);
    } else if (ts.isVariableDeclaration(node)) {
      if (node.initializer && ts.isArrowFunction(node.initializer)) visitCall(node.initializer, node, name);
    } else if (ts.isTypeAliasDeclaration(node)) {
      if (ts.isFunctionTypeNode(node.type)) visitCall(node.type, node, name);
      else for (const { members } of objectTypes(node.type)) visitMembers(members, name);
    } else if (ts.isFunctionLike(node)) {
      visitCall(node, node, name);
    } else if (ts.isInterfaceDeclaration(node) || ts.isClassDeclaration(node)) {
      visitMembers(publicMembers(node), name);
    }
  };

  /** @param commented the declaration that carries the signature's comment */
  const visitCall = (call: ts.SignatureDeclaration, commented: ts.Node, name: string): void => {
    const tags = ts.getJSDocTags(commented);
    const told = tags.filter(ts.isJSDocParameterTag).map((tag) => tag.name.getText());
    // `this` is no argument.
    for (const { name: parameter, type } of call.parameters.filter((one) => one.name.getText() !== "this")) {
      const isTold = (member: string) => told.includes(`${parameter.getText()}.${member}`);
      for (const { members } of objectTypes(type)) visitMembers(members, name, isTold);
    }
    const tellsResult = tags.some(ts.isJSDocReturnTag);
    for (const { members } of objectTypes(call.type)) visitMembers(members, name, () => tellsResult);
  };

  for (const entry of entries) {
    const file = program.getSourceFile(entry);
    const symbol = file && checker.getSymbolAtLocation(file);
    if (symbol === undefined) throw new Error(`${entry}: expected a module`);
    const exported = new Map(
      checker.getExportsOfModule(symbol).map((one) => {
        return [one.name, one.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(one) : one];
      }),
    );
    for (const [name, one] of exported) {
      const own = (one.declarations ?? []).filter((node) => !node.getSourceFile().fileName.includes("/node_modules/"));
      const [first] = own;
      const applied = name.endsWith("Op") ? exported.get(name.slice(0, -"Op".length)) : undefined;
      if (first !== undefined && !says(one) && !(applied && says(applied))) report(first, name);
      for (const declaration of own) visitSignature(declaration, name);
    }
  }
  return [...found.values()].sort((a, b) => a.file.localeCompare(b.file) || a.line - b.line);
}

/** Members with nothing to tell: a fixed value, `kind: "normal"`; a protocol of the language; what the base class tells. */
function saysItself(member: ts.Declaration, symbol: ts.Symbol): boolean {
  const isFixed = ts.isPropertySignature(member) && member.type !== undefined && ts.isLiteralTypeNode(member.type);
  const overrides = (ts.getCombinedModifierFlags(member) & ts.ModifierFlags.Override) !== 0;
  return isFixed || overrides || symbol.escapedName.toString().startsWith("__@");
}

function publicMembers(node: ts.InterfaceDeclaration | ts.ClassDeclaration): readonly ts.Declaration[] {
  if (ts.isInterfaceDeclaration(node)) return node.members;
  const hidden = ts.ModifierFlags.Private | ts.ModifierFlags.Protected;
  return node.members.filter(
    (member) =>
      member.name !== undefined &&
      !ts.isPrivateIdentifier(member.name) &&
      (ts.getCombinedModifierFlags(member) & hidden) === 0,
  );
}

/** Types whose arguments are what they hold. */
const containers = new Set([
  "Array",
  "Iterable",
  "Map",
  "Partial",
  "Promise",
  "Readonly",
  "ReadonlyArray",
  "ReadonlyMap",
]);

/** Object types that are written out in a type: alone, in unions, in lists and in promises. */
function objectTypes(type: ts.TypeNode | undefined): readonly ts.TypeLiteralNode[] {
  if (type === undefined) return [];
  if (ts.isTypeLiteralNode(type)) return [type];
  if (ts.isUnionTypeNode(type) || ts.isIntersectionTypeNode(type)) return type.types.flatMap(objectTypes);
  if (ts.isArrayTypeNode(type)) return objectTypes(type.elementType);
  if (ts.isParenthesizedTypeNode(type) || ts.isTypeOperatorNode(type)) return objectTypes(type.type);
  if (ts.isTypeReferenceNode(type) && containers.has(type.typeName.getText())) {
    return (type.typeArguments ?? []).flatMap(objectTypes);
  }
  return [];
}
