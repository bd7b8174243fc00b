// Stands for the optional package where it is not installed; runtime.ts says what it needs of it.
declare module "onnxruntime-web" {
  export const InferenceSession: unknown;
  export const Tensor: unknown;
}
