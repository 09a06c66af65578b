// Writes the llama.cpp reference that the tests in inference/tests/reference compare against.
//
//   npm install --prefix /path/to/scratch node-llama-cpp@3.22.1
//   NODE_PATH=/path/to/scratch/node_modules node scripts/reference/llama_cpp.mjs \
//       models/SmolLM2-135M-Instruct.Q4_1.gguf inference/tests/fixtures
//
// node-llama-cpp carries a prebuilt llama.cpp, so no compiler is needed. Two files are written:
//   llama_cpp.jsonl      one greedy continuation a line: its prompt, and at each step the five highest logits
//   tokenization.jsonl   one text a line with the token ids llama.cpp gives it
// A third argument is put before the file names (gemma_); a fourth, "tokenization", writes that file only.
// Each file starts with a line {"about": ...} that names the program, the model and the command.
import {createHash} from "node:crypto";
import {createRequire} from "node:module";
import {readFileSync, writeFileSync} from "node:fs";
import {basename, join} from "node:path";
import {pathToFileURL} from "node:url";

const [modelPath, outDir, prefix = "", only = "all"] = process.argv.slice(2);
if (!modelPath || !outDir) {
    console.error("usage: node llama_cpp.mjs MODEL.gguf OUTPUT_DIRECTORY [PREFIX [tokenization]]");
    process.exit(2);
}
const require = createRequire(join(process.env.NODE_PATH ?? process.cwd(), "index.js"));
const {getLlama, getModuleVersion} = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);

const STEPS = 64;
const TOP = 5;
const chat = (user) => "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    + `<|im_start|>user\n${user}<|im_end|>\n<|im_start|>assistant\n`;
const PROMPTS = [
    chat("What is the capital of France?"),
    chat("Write a haiku about the sea at night."),
    chat("Explain to a ten-year-old why the sky is blue."),
    chat("Write a Python function that returns the n-th Fibonacci number."),
    chat("List five fruits in alphabetical order, one a line."),
    chat("Translate into French: The train leaves at eight o'clock."),
    chat("What is 17 + 25? Answer with the number first."),
    "Once upon a time, in a village at the edge of a great forest,",
    "The three laws of thermodynamics state that",
    "fn main() {\n    let numbers = vec![1, 2, 3];\n",
    "Liste der Planeten im Sonnensystem: Merkur, Venus,",
    "Q: Who wrote the play Hamlet?\nA:",
];
// For a model that was never taught to chat.
const BASE_PROMPTS = [
    ...PROMPTS.filter((prompt) => !prompt.startsWith("<|im_start|>")),
    "The capital of France is",
    "import math\n\ndef area(radius):\n    \"\"\"Returns the area of a circle.\"\"\"\n",
    "English: The train leaves at eight o'clock.\nFrench:",
    "Dear Ms. Tanaka,\n\nThank you for your letter of 3 May. ",
    "{\"name\": \"Ada Lovelace\", \"born\": 1815, \"fields\": [",
    "In 1969, for the first time, people",
    "吾輩は猫である。名前は",
];
const TEXTS = [
    "Hello, world!", " leading and trailing ", "line one\nline two\r\n\r\n\tindented", "don't we'll they've I'M",
    "1234567890 3.14159 2,718", "naïve café – “quotes” … №5", "日本語のテキストと한국어", "Привет, мир! Γειά σου Κόσμε",
    "😀👩‍👩‍👧‍👦🇫🇷", "a\u0301e\u0308 combining", "fn f<T>(x: &'a T) -> Result<(), E> { x?; }", "    four spaces\n\n\n\nmany newlines",
    "<|im_start|>user\nhi<|im_end|>", "URL https://example.org/a?b=c&d=%20#frag", "ALLCAPS mixedCase snake_case kebab-case",
    "\u00a0non-breaking\u200bzero-width", "x".repeat(70), "مرحبا بالعالم", "$$\\int_0^1 x^2\\,dx$$", "12 345 ٣٤٥ ⅷ ½",
    "a\u2581b \u2581 c", "<bos>x<start_of_turn>user\nhi<end_of_turn>\n", "tab\t\t\tstop \u0000\u0001", "<table><tr><td>1</td></tr></table>",
];

const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath});
const context = await model.createContext({contextSize: 512, sequences: 1, batchSize: 512, threads: 2, flashAttention: false});
const sequence = context.getSequence();
const round = (value) => Math.round(value * 1e4) / 1e4;

async function next(tokens) {
    const last = tokens.length - 1;
    const input = tokens.map((token, index) => index === last
        ? [token, {generateNext: {logits: {filter: {tokens: [], includeTop: TOP}}, options: {temperature: 0}}}]
        : token);
    const outputs = await sequence.controlledEvaluate(input);
    return [...outputs[last].next.logits].sort((a, b) => b[1] - a[1]).slice(0, TOP);
}

async function continuation(text) {
    await sequence.clearHistory();
    const beginning = model.tokens.shouldPrependBosToken ? [model.tokens.bos] : [];
    const prompt = [...beginning, ...model.tokenize(text, true)];
    const steps = [];
    let pending = prompt;
    for (let step = 0; step < STEPS; step++) {
        const top = await next(pending);
        steps.push(top.flatMap(([id, logit]) => [id, round(logit)]));
        pending = [top[0][0]];
    }
    return {text, prompt, steps};
}

const about = async (what) => JSON.stringify({about: {
    what,
    program: `node-llama-cpp ${await getModuleVersion()}, llama.cpp ${llama.llamaCppRelease?.release ?? "prebuilt"}`,
    model: basename(modelPath),
    sha256: createHash("sha256").update(readFileSync(modelPath)).digest("hex"),
    command: ["node scripts/reference/llama_cpp.mjs MODEL.gguf inference/tests/fixtures", ...process.argv.slice(4)].join(" "),
}});

if (only === "all") {
    const lines = [await about(`greedy continuations of ${STEPS} tokens; steps are [id, logit, ...] of the ${TOP} highest`)];
    const prompts = model.fileInfo.metadata.tokenizer?.chat_template ? PROMPTS : BASE_PROMPTS;
    for (const prompt of prompts) {
        lines.push(JSON.stringify(await continuation(prompt)));
        console.error(`${lines.length - 1}/${prompts.length}`);
    }
    writeFileSync(join(outDir, `${prefix}llama_cpp.jsonl`), lines.join("\n") + "\n");
}

const tokenization = [await about("token ids; special says whether control tokens in the text are recognised")];
for (const text of TEXTS) {
    for (const special of [false, true]) {
        tokenization.push(JSON.stringify({text, special, ids: [...model.tokenize(text, special)]}));
    }
}
writeFileSync(join(outDir, `${prefix}tokenization.jsonl`), tokenization.join("\n") + "\n");
await llama.dispose();
