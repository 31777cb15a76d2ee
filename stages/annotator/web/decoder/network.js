/** The exported decoder, run by onnxruntime-web. The library is no part of the page's sources; package.json pins it. */

import { bytesByHash } from "./fetching.js";

/**
 * @typedef {import("./predict.js").Constants} Constants
 * @typedef {import("./predict.js").Decoded} Decoded
 * @typedef {import("./predict.js").Token} Token
 * @typedef {{values: Uint16Array, shape: number[]}} Embedding Bits of fp16.
 */

/** Decoder of one model. */
export class Network {
  /**
   * @param {any} ort
   * @param {any} session
   * @param {Constants} constants
   */
  constructor(ort, session, constants) {
    this.ort = ort;
    this.session = session;
    this.constants = constants;
  }

  /**
   * Load the library and the decoder; its bytes must have the hash that the server names.
   * @param {Constants} constants
   */
  static async load(constants) {
    const path = `/api/decoder/onnx?model=${encodeURIComponent(constants.model_id)}`;
    const [ort, bytes] = await Promise.all([
      import(`${constants.runtime}/ort.wasm.min.mjs`),
      bytesByHash(path, { "X-Model-Id": constants.model_id }, constants.sha256),
    ]);
    ort.env.wasm.wasmPaths = `${constants.runtime}/`;
    ort.env.logLevel = "error";
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    return new Network(ort, session, constants);
  }

  /**
   * Decode one prompt on one embedding.
   * @param {Embedding} embedding
   * @param {Token[]} tokens
   * @param {Float32Array | null} mask
   * @returns {Promise<Decoded>}
   */
  async decode({ values, shape }, tokens, mask) {
    const { Tensor } = this.ort;
    const side = this.constants.logits_side;
    const found = await this.session.run({
      embedding: new Tensor("float16", values, [1, ...shape]),
      points: new Tensor("float32", Float32Array.from(tokens.flatMap(({ x, y }) => [x, y])), [1, tokens.length, 2]),
      labels: new Tensor("int64", BigInt64Array.from(tokens, ({ label }) => BigInt(label)), [1, tokens.length]),
      mask: new Tensor("float32", mask ?? new Float32Array(side * side), [1, 1, side, side]),
      has_mask: new Tensor("float32", Float32Array.of(mask ? 1 : 0), [1]),
    });
    return { logits: found.logits.data, kept: found.kept_logits.data, iou: found.iou.data };
  }
}
