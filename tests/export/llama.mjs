// Asks llama.cpp: the ids of texts, and what comes after prompts. Reads a JSON file, writes JSON.
import {readFileSync} from "node:fs";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const asked = JSON.parse(readFileSync(process.argv[2], "utf8"));
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath: asked.path});
const ids = asked.texts.map((text) => model.tokenize(text));
// Threads of llama.cpp wait awake: on a busy machine two take a hundred times as long as one.
const context = await model.createContext({contextSize: 128, sequences: 1, threads: 1, flashAttention: false,
  experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"});
const sequence = context.getSequence();
const found = [];
for (const tokens of asked.prompts) {
  await sequence.clearHistory();
  const input = tokens.map((token, at) =>
    at + 1 < tokens.length ? token : [token, {generateNext: {token: true, probabilities: true, options: {temperature: 0}}}]);
  const output = await sequence.controlledEvaluate(input);
  const next = output[tokens.length - 1].next;
  found.push({token: next.token, probabilities: [...next.probabilities.entries()]});
}
const generated = [];
for (const tokens of asked.prompts) {
  await sequence.clearHistory();
  const own = [];
  for await (const token of sequence.evaluate(tokens, {temperature: 0})) {
    own.push(token);
    if (own.length >= asked.num) break;
  }
  generated.push(own);
}
console.log(JSON.stringify({ids, next: found, generated, bos: model.tokens.bos, eos: model.tokens.eos}));
await llama.dispose();
