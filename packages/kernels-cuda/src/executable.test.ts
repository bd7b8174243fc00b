// Which memory a run reads and writes, and what it enqueues, on a driver that only takes notes.

import { add, BlockTensor, exp, f32, type Graph, mul, slice, type TensorSpec, trace } from "@sisa/core";
import { expect, test } from "vitest";
import { lower } from "./backend.ts";
import { Block, type CudaTensor } from "./device-tensor.ts";
import { CudaExecutable, type ExecutableHost } from "./executable.ts";
import { Outcomes } from "./outcomes.ts";
import { bytesOfSpec } from "./plan.ts";
import { planWithoutDevice } from "./testing.ts";

function recording() {
  const calls: string[] = [];
  const freed: number[] = [];
  let address = 256;
  const native = {
    allocate: (bytes: number) => ({ address: 0, buffer: new ArrayBuffer(bytes), free() {} }),
  };
  const driver = {
    native,
    call: (name: string, ...args: readonly unknown[]) => {
      calls.push(name === "cuGraphLaunch" ? `launch graph ${args[0]}` : name);
    },
    handle: () => ++address,
    endCapture: () => ++address,
  };
  const host = {
    device: { driver, stream: 0, blocking: false, overlaps: true, kernel: () => 1 },
    live: new Set<CudaTensor>(),
    outcomes: new Outcomes(() => {}),
    checkOpen() {},
    own: (tensor: CudaTensor) => tensor,
    allocate: (spec: TensorSpec) => host.block(bytesOfSpec(spec)),
    block(bytes: number): Block {
      address += 256;
      return new Block(address, bytes, (place) => freed.push(place));
    },
    copy: () => calls.push("copy"),
  };
  const tensor = (spec: TensorSpec) =>
    new BlockTensor(host as unknown as ExecutableHost, spec, host.allocate(spec), true);
  return { calls, freed, host: host as unknown as ExecutableHost, tensor };
}

const graph = trace({ total: f32(4), x: f32(4), w: f32(4) }, ({ total, x, w }) => ({
  total: add(total, mul(x, w)),
  other: exp(x),
})) as unknown as Graph;

function executable() {
  const { calls, host, tensor } = recording();
  const state = [["total", "total"]] as const;
  const lowered = lower(graph);
  const plan = planWithoutDevice(lowered, state);
  const constants = { w: tensor(f32(4)) };
  const parts = { graph: lowered, plan, state, constants, held: [], closed() {} };
  const program = new CudaExecutable<Graph["inputs"], Graph["outputs"]>(host, parts);
  return { calls, tensor, program, plan, constants };
}

test("what runs twice on the same tensors is captured, and launched as one from then on", () => {
  const { calls, tensor, program } = executable();
  const inputs = { total: tensor(f32(4)), x: tensor(f32(4)) };
  const kinds = () => {
    program.run(inputs);
    return calls.splice(0);
  };
  expect(kinds()).toEqual(["cuLaunchKernel", "cuLaunchKernel", "cuLaunchKernel"]);
  const captured = kinds();
  expect(captured[0]).toBe("cuStreamBeginCapture");
  expect(captured.at(-1)).toMatch(/launch graph/);
  expect(kinds()).toEqual([captured.at(-1)]);
  // Another tensor has another address; the first ones have their graph still.
  const other = { ...inputs, x: tensor(f32(4)) };
  program.run(other);
  expect(calls.splice(0)).toEqual(["cuLaunchKernel", "cuLaunchKernel", "cuLaunchKernel"]);
  expect(kinds()).toEqual([captured.at(-1)]);
});

test("addresses are those of the tensors that are passed, and of constants", () => {
  const { tensor, program, plan, constants } = executable();
  const inputs = { total: tensor(f32(4)), x: tensor(f32(4)) };
  for (const x of [inputs.x, tensor(f32(4)), inputs.x]) {
    const results = program.run({ ...inputs, x });
    expect(Object.keys(results)).toEqual(["total", "other"]);
    expect(results.total).toBe(inputs.total);
    const addresses = Object.fromEntries(Object.entries(plan.inputs).map(([name, { address }]) => [name, address]));
    expect(addresses).toEqual({
      total: inputs.total.block.address,
      x: x.block.address,
      w: constants.w.block.address,
    });
  }
});

test("a state whose value is kept goes on in memory of its own", () => {
  const { calls, tensor, program } = executable();
  const inputs = { total: tensor(f32(4)), x: tensor(f32(4)) };
  program.run(inputs);
  const kept = inputs.total.keep() as CudaTensor;
  calls.splice(0);
  program.run(inputs);
  expect(calls).toContain("copy");
  expect(inputs.total.block).not.toBe(kept.block);
});

test("a tensor that is state is copied where it is read as something else", () => {
  const { calls, tensor, program } = executable();
  const total = tensor(f32(4));
  program.run({ total, x: total });
  expect(calls).toContain("copy");
});

test("wrong, disposed, missing and unknown tensors are refused, also after a run with right ones", () => {
  const { tensor, program } = executable();
  const inputs = { total: tensor(f32(4)), x: tensor(f32(4)) };
  const run = (change: object) => () => program.run({ ...inputs, ...change });
  for (let round = 0; round < 2; round++) {
    expect(run({ x: tensor(f32(5)) })).toThrow('input "x" must be [4], got [5]');
    expect(run({ y: tensor(f32(4)) })).toThrow('no input is named "y"');
    expect(run({ w: tensor(f32(4)) })).toThrow('input "w" is a constant');
    expect(run({ x: undefined })).toThrow('input "x" is missing');
    program.run(inputs);
  }
  inputs.x.dispose();
  expect(run({})).toThrow("disposed");
});

test("two states in one tensor are refused, also after a run with right ones", () => {
  const { host, tensor } = recording();
  const sums = trace({ a: f32(4), b: f32(4), x: f32(4) }, ({ a, b, x }) => ({ a: add(a, x), b: mul(b, x) }));
  const lowered = lower(sums as unknown as Graph);
  const state = [
    ["a", "a"],
    ["b", "b"],
  ] as const;
  const plan = planWithoutDevice(lowered, state);
  const parts = { graph: lowered, plan, state, constants: {}, held: [], closed() {} };
  const program = new CudaExecutable<Graph["inputs"], Graph["outputs"]>(host, parts);
  const [a, b, x] = [tensor(f32(4)), tensor(f32(4)), tensor(f32(4))];
  for (let round = 0; round < 2; round++) {
    expect(() => program.run({ a: b, b, x })).toThrow(
      'inputs "a" and "b" are state, so each needs a tensor of its own',
    );
    program.run({ a, b, x });
  }
  // Each may take the place of the other.
  expect(program.run({ a: b, b: a, x }).a).toBe(b);
});

test("an output cannot be used once its program ran again, nor as state", () => {
  const { tensor, program } = executable();
  const inputs = { total: tensor(f32(4)), x: tensor(f32(4)) };
  const { other } = program.run(inputs);
  expect(() => program.run({ ...inputs, total: other as CudaTensor })).toThrow("is an output of an executable");
  program.run({ ...inputs, x: other as CudaTensor });
  expect(() => program.run({ ...inputs, x: other as CudaTensor })).toThrow("used after");
});

test("an output that is kept moves before the next run, which is launched as it was captured and may read it", () => {
  const { calls, tensor, program, plan } = executable();
  const inputs = { total: tensor(f32(4)), x: tensor(f32(4)) };
  const run = (x = inputs.x) => {
    const kept = program.run({ ...inputs, x }).other?.keep() as CudaTensor;
    return {
      kept,
      wrote: plan.outputs.other?.storage.address,
      read: plan.inputs.x?.address,
      enqueued: calls.splice(0),
    };
  };
  const [first, second, third] = [run(), run(), run()];
  expect(second.enqueued[0]).toBe("copy");
  expect(third.enqueued).toEqual(["copy", second.enqueued.at(-1)]);
  expect([second.wrote, third.wrote]).toEqual([first.wrote, first.wrote]);
  const addresses = [first, second].map(({ kept }) => kept.block.address);
  expect(new Set([...addresses, third.wrote]).size).toBe(3);
  const fourth = run(third.kept);
  expect(fourth.read).toBe(third.kept.block.address);
  expect(fourth.read).not.toBe(fourth.wrote);
});

test.each([4, 32_768])("an output of %i numbers that its own program reads next is not written meanwhile", (size) => {
  const { calls, host, tensor, freed } = recording();
  const lowered = lower(trace({ x: f32(size) }, ({ x }) => ({ y: exp(x) })) as unknown as Graph);
  const plan = planWithoutDevice(lowered);
  const parts = { graph: lowered, plan, state: [], constants: {}, held: [], closed() {} };
  const program = new CudaExecutable<Graph["inputs"], Graph["outputs"]>(host, parts);
  let { y } = program.run({ x: tensor(f32(size)) }) as { readonly [name: string]: CudaTensor };
  for (let count = 1; count <= 3; count++) {
    calls.splice(0);
    freed.splice(0);
    ({ y } = program.run({ x: y as CudaTensor }) as { readonly [name: string]: CudaTensor });
    const [read, wrote] = [plan.inputs.x?.address, plan.outputs.y?.storage.address];
    expect(wrote).toBe(y?.block.address);
    expect(read).not.toBe(wrote);
    // What was read is given back once all is enqueued.
    expect(freed).toEqual([read]);
  }
});

test("outputs in one memory move together when one of them is kept, and free it when none is", () => {
  const { host, tensor, freed } = recording();
  const halves = trace({ x: f32(64, 512) }, ({ x }) => {
    const whole = exp(x);
    return { first: slice(whole, { axis: 0, end: 32 }), last: slice(whole, { axis: 0, start: 32 }) };
  }) as unknown as Graph;
  const lowered = lower(halves);
  const parts = { graph: lowered, plan: planWithoutDevice(lowered), state: [], constants: {}, held: [], closed() {} };
  const program = new CudaExecutable<Graph["inputs"], Graph["outputs"]>(host, parts);
  const inputs = { x: tensor(f32(64, 512)) };
  const run = () => {
    const { first, last } = program.run(inputs) as { readonly [name: string]: CudaTensor };
    return { last, addresses: [first?.block.address ?? 0, last?.block.address ?? 0] };
  };
  const once = run();
  expect((once.addresses[1] ?? 0) - (once.addresses[0] ?? 0)).toBe(4 * 32 * 512);
  const again = run();
  expect(again.addresses).toEqual(once.addresses);
  const kept = again.last?.keep();
  const other = run();
  expect(other.addresses[0]).not.toBe(once.addresses[0]);
  expect((kept as CudaTensor).block.address).toBe(once.addresses[1]);
  expect(freed).toEqual([]);
  kept?.dispose();
  expect(freed).toEqual([once.addresses[0]]);
  program.close();
  expect(freed).toEqual([once.addresses[0], other.addresses[0]]);
});
