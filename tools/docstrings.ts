// Which public names do not say what has to be known of them: what entries export, the members of those classes and
// interfaces, and the properties of object types that are written out in a signature.
import ts from "typescript";
import { errorsIn, givesTensors, hasShape, papersOf, thrownBy } from "./docstring-facts.ts";

/** What the comment of a public name does not say. */
export interface Complaint {
  readonly name: string;
  readonly what: string;
  readonly file: string;
  /** From 1. */
  readonly line: number;
}

/**
 * What is missing in comments, by file and line:
 *
 * - a comment at all. A member counts as documented by the member that it implements; a property of a parameter by
 *   `@param parameter.property`, a property of a result by `@returns`; and the definition of an operation, `addOp`, by
 *   the function that applies it, `add`;
 * - `@throws` for each of our errors that a function throws by itself, and the name of an error that is public there;
 * - a shape in brackets, such as [B,T,D], where tensors are given;
 * - the default of an option;
 * - the types of objects that a signature names, which must be public too;
 * - the paper that the definition of an operation names.
 *
 * @param entries the files whose exports are public
 * @param options how they are compiled
 */
export function complaints(entries: readonly string[], options: ts.CompilerOptions): Complaint[] {
  const program = ts.createProgram(entries, { ...options, noEmit: true, incremental: false });
  const checker = program.getTypeChecker();
  const found: Complaint[] = [];
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

  const report = (node: ts.Node, name: string, what: string): void => {
    const file = node.getSourceFile();
    const { line } = file.getLineAndCharacterOfPosition(node.getStart());
    found.push({ name, what, file: file.fileName, line: line + 1 });
  };

  const resolved = (symbol: ts.Symbol | undefined): ts.Symbol | undefined =>
    symbol && symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;

  /** All that a comment says, that of the implemented member where there is none of its own. */
  const commentOf = (node: ts.Node): string => {
    const own = ts.getNameOfDeclaration(node as ts.Declaration);
    const symbol = own && checker.getSymbolAtLocation(own);
    // A constructor has no name, and its comment no symbol.
    if (symbol === undefined)
      return ts
        .getJSDocTags(node)
        .map((tag) => tag.getText())
        .join("\n");
    const tags = symbol.getJsDocTags(checker).map(({ name, text }) => `@${name} ${ts.displayPartsToString(text)}`);
    return [ts.displayPartsToString(symbol.getDocumentationComment(checker)), ...tags].join("\n");
  };

  /**
   * @param told what the comment of the signature around the members tells of one of this name
   * @param areOptions whether those that may be left out must have a default
   */
  const visitMembers = (
    members: readonly ts.Declaration[],
    name: string,
    areOptions: boolean,
    told: (member: string) => string | undefined = () => undefined,
  ): void => {
    for (const member of members) {
      const own = ts.getNameOfDeclaration(member);
      const symbol = own && checker.getSymbolAtLocation(own);
      if (symbol === undefined || visited.has(member) || saysItself(member, symbol) || isInternal(member)) continue;
      visited.add(member);
      const full = `${name}.${symbol.name}`;
      const comment = says(symbol) ? commentOf(member) : told(symbol.name);
      if (comment === undefined && !narrowsDocumented(member, symbol)) report(member, full, "has no comment");
      const isOptional = areOptions && ts.isPropertySignature(member) && member.questionToken !== undefined;
      if (isOptional && comment !== undefined && !/\bdefault\b/i.test(comment)) report(member, full, "has no default");
      visitSignature(member, full);
    }
  };

  /** Objects that are named in a type; those of the language and of other packages are public by themselves. */
  const checkTypes = (type: ts.Node | undefined, name: string): void => {
    if (type === undefined) return;
    if (ts.isTypeReferenceNode(type)) {
      const symbol = resolved(checker.getSymbolAtLocation(type.typeName));
      const [declaration] = symbol?.declarations ?? [];
      const isOurs = declaration && !declaration.getSourceFile().fileName.includes("/node_modules/");
      if (symbol && isOurs && hasMembers(declaration) && !publicSymbols.has(symbol)) {
        report(type, name, `names the type ${symbol.name}, which is not public`);
      }
    }
    if (!ts.isBlock(type)) ts.forEachChild(type, (child) => checkTypes(child, name));
  };

  const visitSignature = (node: ts.Node, name: string): void => {
    if (ts.isPropertySignature(node) || ts.isPropertyDeclaration(node)) {
      if (node.type === undefined) return;
      checkTypes(node.type, name);
      if (ts.isFunctionTypeNode(node.type)) visitCall(node.type, node, name);
      else for (const { members } of objectTypes(node.type)) visitMembers(members, name, false);
    } else if (ts.isVariableDeclaration(node)) {
      if (node.initializer && ts.isArrowFunction(node.initializer)) visitCall(node.initializer, node, name);
    } else if (ts.isTypeAliasDeclaration(node)) {
      if (ts.isFunctionTypeNode(node.type)) visitCall(node.type, node, name);
      else for (const { members } of objectTypes(node.type)) visitMembers(members, name, isOptionsName(name));
    } else if (ts.isFunctionLike(node)) {
      visitCall(node, node, name);
    } else if (ts.isInterfaceDeclaration(node) || ts.isClassDeclaration(node)) {
      visitMembers(publicMembers(node), name, isOptionsName(name));
      for (const member of node.members) if (ts.isConstructorDeclaration(member)) checkErrors(member, member, name);
    }
  };

  /** @param commented the declaration that carries the comment */
  const checkErrors = (call: ts.SignatureDeclaration, commented: ts.Node, name: string): void => {
    const told = errorsIn(commentOf(commented));
    for (const error of thrownBy(call, checker)) {
      if (!told.includes(error)) report(call, name, `throws ${error} without @throws`);
    }
    for (const error of told) if (!isPublic(error)) report(call, name, `@throws ${error}, which is not public`);
  };

  /** @param commented the declaration that carries the signature's comment */
  const visitCall = (call: ts.SignatureDeclaration, commented: ts.Node, name: string): void => {
    checkErrors(call, commented, name);
    for (const part of [...call.parameters.map(({ type }) => type), call.type]) checkTypes(part, name);
    if (givesTensors(call, checker) && !hasShape(commentOf(commented))) report(call, name, "has no shape");
    const tags = ts.getJSDocTags(commented);
    const told = new Map(tags.filter(ts.isJSDocParameterTag).map((tag) => [tag.name.getText(), tag.getText()]));
    // `this` is no argument.
    for (const { name: parameter, type } of call.parameters.filter((one) => one.name.getText() !== "this")) {
      const text = parameter.getText();
      const ofMember = (member: string) => told.get(`${text}.${member}`);
      for (const { members } of objectTypes(type)) visitMembers(members, name, text === "options", ofMember);
    }
    const tellsResult = tags.some(ts.isJSDocReturnTag);
    for (const { members } of objectTypes(call.type)) {
      visitMembers(members, name, false, () => (tellsResult ? "by @returns" : undefined));
    }
  };

  const modules = entries.map((entry) => {
    const file = program.getSourceFile(entry);
    const symbol = file && checker.getSymbolAtLocation(file);
    if (symbol === undefined) throw new Error(`${entry}: expected a module`);
    return new Map(checker.getExportsOfModule(symbol).map((one) => [one.name, resolved(one) ?? one]));
  });
  const publicSymbols = new Set(modules.flatMap((exported) => [...exported.values()]));
  const isPublic = (error: string) => modules.some((exported) => exported.has(error)) || error in globalThis;

  for (const exported of modules) {
    for (const [name, one] of exported) {
      const own = (one.declarations ?? []).filter((node) => !node.getSourceFile().fileName.includes("/node_modules/"));
      const [first] = own;
      if (first === undefined || visited.has(first)) continue;
      visited.add(first);
      const applied = name.endsWith("Op") ? exported.get(name.slice(0, -"Op".length)) : undefined;
      if (!says(one) && !(applied && says(applied))) report(first, name, "has no comment");
      const [application] = applied?.declarations ?? [];
      for (const paper of application ? papersOf(first) : []) {
        if (application && !commentOf(application).includes(paper))
          report(application, applied?.name ?? name, `does not name ${paper}`);
      }
      for (const declaration of own) visitSignature(declaration, name);
    }
  }
  return found.sort((a, b) => a.file.localeCompare(b.file) || a.line - b.line);
}

/** Left out of the reference. */
function isInternal(member: ts.Node): boolean {
  return ts.getJSDocTags(member).some(({ tagName }) => tagName.text === "internal");
}

/** True for types of objects with members that somebody has to know; a record with any names has none. */
function hasMembers(type: ts.Declaration): boolean {
  if (ts.isTypeAliasDeclaration(type))
    return ts.isTypeLiteralNode(type.type) && type.type.members.some(({ name }) => name);
  return ts.isInterfaceDeclaration(type) || ts.isClassDeclaration(type);
}

/** Names of types whose members are settings. */
function isOptionsName(name: string): boolean {
  return /(Options|Settings)$/.test(name);
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
