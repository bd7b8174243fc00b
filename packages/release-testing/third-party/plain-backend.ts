// A backend of somebody else: it plans graphs itself, has a kernel for one operation, and takes the rest from their
// definitions.
import {
  type AnyTensor,
  allocate,
  type Backend,
  boundSymbols,
  type CompileOptions,
  checkConstants,
  checkData,
  checkInputs,
  checkState,
  type DeviceTensor,
  DisposedError,
  type Executable,
  elementsOf,
  evaluateNode,
  expandComposites,
  type Graph,
  GraphError,
  type GraphInputs,
  type GraphOutputs,
  type NdArray,
  simplify,
  sizeOf,
  sizesOf,
  type TensorSpec,
  type TypedArray,
} from "@sisa/core";

class PlainTensor implements DeviceTensor {
  readonly spec: TensorSpec;
  readonly #live: Set<PlainTensor>;
  #value: NdArray | undefined;

  constructor(spec: TensorSpec, value: NdArray, live: Set<PlainTensor>) {
    this.spec = spec;
    this.#value = value;
    this.#live = live;
    live.add(this);
  }
  get value(): NdArray {
    if (this.#value === undefined) throw new DisposedError("plain: the tensor is gone; keep() it");
    return this.#value;
  }
  set value(next: NdArray) {
    this.#value = next;
  }
  async read(): Promise<TypedArray> {
    const result = allocate(this.spec.dtype, this.value.data.length);
    result.set(this.value.data);
    return result;
  }
  keep(): DeviceTensor {
    return new PlainTensor(this.spec, this.value, this.#live);
  }
  dispose(): void {
    this.#value = undefined;
    this.#live.delete(this);
  }
}

/** Cubes, in the one way this backend is better than all others. */
function cubeKernel(x: NdArray): NdArray {
  const data = Float64Array.from(x.data, (element) => Math.fround(element * element * element));
  return { shape: x.shape, data };
}

/** A backend that also says how often its own kernel ran. */
export interface PlainBackend extends Backend {
  readonly cubes: number;
}

/** float32 and int32 in JavaScript; needs no device. */
export function plain(): PlainBackend {
  const live = new Set<PlainTensor>();
  let cubes = 0;

  function decoded(spec: TensorSpec, data: TypedArray): NdArray {
    checkData(spec, data, sizeOf(elementsOf(spec.shape)));
    return {
      shape: sizesOf(spec.shape),
      data: spec.dtype === "float32" ? Float64Array.from(data) : Int32Array.from(data),
    };
  }

  function execute(graph: Graph, inputs: { readonly [name: string]: PlainTensor }): (tensor: AnyTensor) => NdArray {
    const values = new Map<AnyTensor, NdArray>();
    const known = (tensor: AnyTensor): NdArray => {
      const value = values.get(tensor);
      if (value === undefined) throw new GraphError(`plain: a value of ${tensor.node.op.name} is missing`);
      return value;
    };
    for (const [name, tensor] of Object.entries(graph.inputTensors)) {
      const given = inputs[name];
      if (given) values.set(tensor, given.value);
    }
    for (const node of graph.nodes) {
      const operands = Object.fromEntries(Object.entries(node.inputs).map(([name, tensor]) => [name, known(tensor)]));
      const { x } = operands;
      const isCube = node.op.name === "acme/cube" && x !== undefined;
      if (isCube) cubes++;
      const results = isCube ? { value: cubeKernel(x) } : evaluateNode(node, operands, "rounded");
      for (const [name, tensor] of Object.entries(node.outputs)) {
        const result = (results as { readonly [name: string]: NdArray })[name];
        if (result) values.set(tensor, result);
      }
    }
    return known;
  }

  function compiled<I extends GraphInputs, O extends GraphOutputs>(
    graph: Graph<I, O>,
    options: CompileOptions<I, O>,
  ): Executable<I, O> {
    const state = checkState(graph as unknown as Graph, (options.state ?? {}) as Record<string, string>);
    const constants = Object.fromEntries(
      checkConstants(graph as unknown as Graph, (options.constants ?? {}) as Record<string, TypedArray>, {}).map(
        ([name, spec, data]) => [name, new PlainTensor(spec, decoded(spec, data), live)],
      ),
    );
    let views: PlainTensor[] = [];
    return {
      run(given) {
        const tensors = given as { readonly [name: string]: DeviceTensor } as { readonly [name: string]: PlainTensor };
        const inputs = checkInputs(graph as unknown as Graph, tensors, constants, state);
        const symbols = boundSymbols(graph as unknown as Graph, (name) => inputs[name]?.spec.shape);
        const bound = simplify(expandComposites((graph as unknown as Graph).bind(symbols), () => true));
        const known = execute(bound, inputs);
        for (const view of views) view.dispose();
        views = [];
        const owners = new Map(state.map(([input, output]) => [output, inputs[input]]));
        // All values exist before the first state is replaced.
        const results = Object.entries(bound.outputTensors).map(
          ([name, tensor]) => [name, tensor, known(tensor)] as const,
        );
        const outputs = results.map(([name, { dtype, shape }, value]) => {
          const owner = owners.get(name);
          if (owner) {
            owner.value = value;
            return [name, owner];
          }
          const view = new PlainTensor({ dtype, shape }, value, live);
          views.push(view);
          return [name, view];
        });
        return Object.fromEntries(outputs);
      },
      close() {
        for (const tensor of [...views, ...Object.values(constants)]) tensor.dispose();
      },
    };
  }

  const close = async () => {
    for (const tensor of [...live]) tensor.dispose();
  };
  return {
    name: "acme/plain",
    limits: { symbolicDims: true, hostMemory: true, pagedCaches: false, chunkLength: 64, maximumTensorBytes: 2 ** 30 },
    get cubes() {
      return cubes;
    },
    compile: async (graph, options = {}) => compiled(graph, options),
    tensor: (spec, data) =>
      new PlainTensor(spec, decoded(spec, data ?? allocate(spec.dtype, sizeOf(elementsOf(spec.shape)))), live),
    write(tensor, data) {
      (tensor as PlainTensor).value = decoded(tensor.spec, data);
    },
    memory: () => ({ deviceBytes: [...live].reduce((total, { value }) => total + value.data.byteLength, 0) }),
    close,
    [Symbol.asyncDispose]: close,
  };
}
