// What @sisa/hub offers everywhere, browsers included. Files and processes of Node are in ./node.ts.

export { parseJson } from "./json.ts";
export {
  type ForeignModel,
  type ForeignTensor,
  foreignModel,
  foreignModelTypes,
  fromForeign,
} from "./models/foreign/foreign-model.ts";
export type { GenerationConfig } from "./models/generation-config.ts";
export { type ImportOptions, importTorchModel } from "./models/import-torch.ts";
export { loadModel } from "./models/load-model.ts";
export {
  checkTokenizer,
  type LoadedModel,
  type LoadOptions,
  type ModelToSave,
  type ParameterData,
  readParameters,
  type SaveOptions,
  saveModelFolder as saveModel,
} from "./models/model-folder.ts";
export { openSafetensors, type ReadOptions, type SafetensorsFile } from "./safetensors/read.ts";
export {
  openTensors,
  type ShardedReadOptions,
  type ShardedWriteOptions,
  writeTensors,
} from "./safetensors/sharded.ts";
export { type TensorToWrite, type WriteOptions, writeSafetensors } from "./safetensors/write.ts";
export type { ShardFile, ShardIndex, SplitIndex, SplitName } from "./shards/index-file.ts";
export { openTokenShards, type TokenShards, type TokenSplit } from "./shards/read-shards.ts";
export {
  type DocumentCounts,
  type ShardWriteOptions,
  type TokenShardWriter,
  tokenShardWriter,
} from "./shards/write-shards.ts";
export { filesStorage, type PickedFile } from "./storage/files-storage.ts";
export { memoryStorage } from "./storage/memory-storage.ts";
export { type FileProducer, type FileWriter, readBytes, type Storage, type StoredFile } from "./storage/storage.ts";
export { StorageError, type StorageErrorReason } from "./storage/storage-error.ts";
export { type UrlStorageOptions, urlStorage } from "./storage/url-storage.ts";
export {
  type FileDType,
  fromFloat32,
  type HostTensor,
  type TensorArray,
  type TensorInfo,
  type TensorSource,
  toFloat32,
  toInt32,
} from "./tensors.ts";
export { byteTokenizer } from "./tokenizers/byte-tokenizer.ts";
export { loadTokenizer, tokenizerFromFiles } from "./tokenizers/json-tokenizer.ts";
export { type StreamDecoder, type Tokenizer, tokenizerFingerprint } from "./tokenizers/tokenizer.ts";
export { type ConfigHints, inferModelConfig } from "./torch/infer-config.ts";
export { openTorchCheckpoint, type TorchCheckpoint } from "./torch/torch-checkpoint.ts";
export { decodeUtf8, firstInvalidUtf8, withoutByteOrderMark } from "./utf8.ts";
