/**
 * The worker that decodes: it holds decoders and embeddings, and answers one message after the other.
 *
 * @typedef {{kind: "open", model: string, image: string}} OpenMessage
 * @typedef {{kind: "predict", model: string, image: string, prompt: import("./predict.js").Prompt}} PredictMessage
 * @typedef {{id: number} & (OpenMessage | PredictMessage)} Message
 * @typedef {import("./frame.js").Crop} Crop
 * @typedef {import("./network.js").Embedding} Embedding
 * @typedef {{network: Network, predictor: Predictor}} Decoder
 * @typedef {import("./predict.js").OpenedImage & {prefetch: () => Promise<void>}} PrefetchedImage
 */

import { checkedBytes, readJson } from "./fetching.js";
import { keepOwnFiles } from "./kept.js";
import { Network } from "./network.js";
import { Predictor, WrongPrompt } from "./predict.js";

const MAX_IMAGES = 3;
/** @type {Map<string, Promise<Decoder>>} */
const decoders = new Map();
/** @type {Map<string, Promise<PrefetchedImage>>} */
const images = new Map();
let turn = Promise.resolve();

addEventListener("message", (event) => {
  const message = /** @type {Message} */ (event.data);
  // One run of a network at a time; opening goes beside it
  const done = message.kind === "predict" ? (turn = turn.then(() => answer(message))) : answer(message);
  void done;
});

/** @param {Message} message */
async function answer(message) {
  try {
    postMessage({ id: message.id, result: await (message.kind === "open" ? open(message) : predict(message)) });
  } catch (error) {
    const text = String(/** @type {Error} */ (error)?.message ?? error);
    postMessage({ id: message.id, error: text, isWrongPrompt: error instanceof WrongPrompt });
  }
}

/** Make a model and an image ready: the decoder, and the embeddings of the whole image and the first windows. */
async function open(/** @type {OpenMessage} */ { model, image }) {
  await decoderOf(model);
  const opened = await imageOf(model, image);
  await opened.prefetch();
  void keepOwnFiles().catch(() => undefined); // without them it decodes, but not after a reload offline
}

/** @param {PredictMessage} message */
async function predict({ model, image, prompt }) {
  const { predictor } = await decoderOf(model);
  return predictor.predict(await imageOf(model, image), prompt);
}

/** @param {string} model @returns {Promise<Decoder>} */
function decoderOf(model) {
  return remember(decoders, model, Infinity, async () => {
    const constants = await readJson(`/api/decoder?model=${encodeURIComponent(model)}`);
    if (constants.reason) throw new Error(constants.reason);
    return { network: await Network.load(constants), predictor: new Predictor(constants) };
  });
}

/** @param {string} model @param {string} image @returns {Promise<PrefetchedImage>} */
function imageOf(model, image) {
  return remember(images, `${model} ${image}`, MAX_IMAGES, async () => {
    const { network } = await decoderOf(model);
    const query = `model=${encodeURIComponent(network.constants.model_id)}`;
    const facts = await readJson(`/api/images/${image}/facts?${query}`);
    /** @type {Crop[]} */
    const crops = facts.windows;
    /** @type {Map<string, Promise<Embedding>>} */
    const embeddings = new Map();
    const embed = (/** @type {number} */ window) =>
      remember(embeddings, String(window), Infinity, async () => {
        const { bytes } = await checkedBytes(`/api/images/${image}/embedding?window=${window}&${query}`, {
          "X-Model-Id": facts.model_id,
          "X-Image-Sha256": facts.sha256,
          "X-Window": crops[window].join(),
          "X-Shape": facts.embedding_shape.join(),
        });
        return { values: new Uint16Array(bytes.buffer), shape: facts.embedding_shape };
      });
    const embedCrop = (/** @type {Crop} */ crop) => embed(crops.findIndex((each) => each.join() === crop.join()));
    return {
      size: [facts.height, facts.width],
      sha256: facts.sha256,
      windows: crops.map((xyxy, at) => ({ xyxy, layer: facts.layers[at] })),
      prepare: (crop) => void embedCrop(crop).catch(() => undefined), // `decode` says what is wrong
      decode: async (crop, tokens, mask) => network.decode(await embedCrop(crop), tokens, mask),
      prefetch: async () => {
        const [first, later] = [[0, 1], [2]].map((layers) => crops.keys().filter((at) => layers.includes(facts.layers[at])));
        for (const window of first) await embed(window);
        void prefetchLater(later, embed);
      },
    };
  });
}

/** Fetch one after the other, so that a slow line stays free for what an annotator waits for. */
async function prefetchLater(/** @type {Iterable<number>} */ windows, /** @type {(window: number) => Promise<Embedding>} */ embed) {
  try {
    for (const window of windows) await embed(window);
  } catch {
    // Whoever needs the window asks again, and is told
  }
}

/**
 * Return what is known by a name, or make it; what fails is made again when it is needed again.
 * @template T
 * @param {Map<string, Promise<T>>} known
 * @param {string} name
 * @param {number} limit Most that are kept; the oldest go.
 * @param {() => Promise<T>} make
 * @returns {Promise<T>}
 */
function remember(known, name, limit, make) {
  const found = known.get(name);
  if (found) return found;
  const made = make();
  known.set(name, made);
  made.catch(() => known.delete(name));
  for (const oldest of known.keys()) {
    if (known.size <= limit) break;
    known.delete(oldest);
  }
  return made;
}
