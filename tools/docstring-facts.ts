// What can be read off the code and off a comment, so that one can be held against the other.
import ts from "typescript";

/**
 * Names of our errors that a function throws: in its body, in functions that are private to its file or class, in those
 * that are there to check (`checkSizes`, `expectKind`), and in the rules of the operation that it applies.
 */
export function thrownBy(call: ts.SignatureDeclaration, checker: ts.TypeChecker): ReadonlySet<string> {
  const thrown = new Set<string>();
  const seen = new Set<ts.Node>([call]);
  for (const body of seen) visit(body, true);
  return thrown;

  function visit(node: ts.Node, isBody = false): void {
    // Functions that are handed on run now, others when they are called.
    if (!isBody && (ts.isClassLike(node) || (ts.isFunctionLike(node) && !ts.isCallExpression(node.parent)))) return;
    if (ts.isTryStatement(node) && node.catchClause && !rethrows(node.catchClause)) {
      visit(node.catchClause);
      if (node.finallyBlock) visit(node.finallyBlock);
      return;
    }
    if (ts.isThrowStatement(node) && ts.isNewExpression(node.expression)) {
      const [name, ...bases] = classesOf(checker.getTypeAtLocation(node.expression));
      if (name !== undefined && [name, ...bases].includes("SisaError")) thrown.add(name);
    }
    if (ts.isCallExpression(node)) for (const followed of partsOf(node)) seen.add(followed);
    ts.forEachChild(node, (child) => visit(child));
  }

  function partsOf(node: ts.CallExpression): readonly ts.Node[] {
    const callee = ts.isPropertyAccessExpression(node.expression) ? node.expression.name : node.expression;
    // Methods of other objects say themselves what they throw; looking for their types would take most of the time.
    if (!ts.isPrivateIdentifier(callee) && callee !== node.expression) return [];
    const declared = declarationsOf(callee).flatMap((one) => (isPrivate(one) || isCheck(one) ? functionsOf(one) : []));
    const [op] = node.arguments;
    return callee.getText() === "apply" && op ? [...declared, ...declarationsOf(op).flatMap(rulesOf)] : declared;
  }

  function isPrivate(node: ts.Declaration): boolean {
    if (node.getSourceFile() !== call.getSourceFile()) return false;
    if (ts.isMethodDeclaration(node)) return ts.isPrivateIdentifier(node.name);
    return (ts.getCombinedModifierFlags(node) & ts.ModifierFlags.Export) === 0;
  }

  function isCheck(node: ts.Declaration): boolean {
    return ts.isFunctionDeclaration(node) && /^(check|expect)[A-Z]/.test(node.name?.text ?? "");
  }

  /** The rules that complain about inputs: `check` and `infer` of a definition. */
  function rulesOf(definition: ts.Declaration): readonly ts.Node[] {
    if (!ts.isVariableDeclaration(definition)) return [];
    return fieldsOf(definition)
      .filter(({ name }) => ["check", "infer"].includes(name?.getText() ?? ""))
      .flatMap(functionsOf);
  }

  /** The function that a declaration is, or gives a name to. */
  function functionsOf(node: ts.Node): readonly ts.Node[] {
    if (ts.isFunctionLike(node)) return [node];
    if (ts.isIdentifier(node)) return declarationsOf(node).flatMap(functionsOf);
    const named = ts.isVariableDeclaration(node) || ts.isPropertyAssignment(node) ? node.initializer : undefined;
    return named ? functionsOf(named) : [];
  }

  function declarationsOf(node: ts.Node): readonly ts.Declaration[] {
    const symbol = checker.getSymbolAtLocation(node);
    if (symbol === undefined) return [];
    const own = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
    return own.declarations ?? [];
  }
}

/** Names of a class and of those that it is derived from. */
function classesOf(type: ts.Type): readonly string[] {
  const bases = type.getBaseTypes() ?? [];
  return [type.symbol?.name ?? "", ...bases.flatMap(classesOf)];
}

function rethrows(clause: ts.CatchClause): boolean {
  const throws = (node: ts.Node): boolean =>
    ts.isThrowStatement(node) || (!ts.isFunctionLike(node) && (ts.forEachChild(node, throws) ?? false));
  return throws(clause.block);
}

/** The fields of an object that is an argument of a variable's first value: `defineComposite({ ... })`. */
function fieldsOf({ initializer }: ts.VariableDeclaration): readonly ts.ObjectLiteralElementLike[] {
  if (!initializer || !ts.isCallExpression(initializer)) return [];
  return initializer.arguments.filter(ts.isObjectLiteralExpression).flatMap(({ properties }) => [...properties]);
}

/** Papers that the definition of an operation names: "arXiv:1706.03762". */
export function papersOf(definition: ts.Declaration): readonly string[] {
  if (!ts.isVariableDeclaration(definition)) return [];
  const source = fieldsOf(definition).find(({ name }) => name?.getText() === "source");
  return source?.getText().match(/arXiv:\d+\.\d+/g) ?? [];
}

/** Errors that the `@throws` of a comment names. */
export function errorsIn(comment: string): readonly string[] {
  return comment
    .split(/^@/m)
    .flatMap((tag) => (tag.startsWith("throws") ? (tag.match(/\b[A-Z]\w*Error\b/g) ?? []) : []));
}

/** Whether a comment has a shape, such as [B,T,D], [..., V] or []; a link, [text](target), is none. */
export function hasShape(comment: string): boolean {
  return /\[[\w\s.,*+/-]*\](?!\()/.test(comment);
}

/** Whether a function gives a tensor, or a record of tensors. A property gives what was there. */
export function givesTensors(call: ts.SignatureDeclaration, checker: ts.TypeChecker): boolean {
  const result = checker.getSignatureFromDeclaration(call)?.getReturnType();
  if (result === undefined || ts.isGetAccessor(call)) return false;
  const fields = checker.getPropertiesOfType(result);
  const types = fields.map((field) => checker.getTypeOfSymbol(field));
  return isTensor(result) || (fields.length > 0 && types.every(isTensor));
}

function isTensor(type: ts.Type): boolean {
  if (type.isUnion()) return type.types.some(isTensor);
  return (type.aliasSymbol ?? type.symbol)?.name === "Tensor" || type.aliasSymbol?.name === "AnyTensor";
}
