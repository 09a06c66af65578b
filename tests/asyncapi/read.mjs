// Reads an AsyncAPI document with AsyncAPI's own parser and prints it as JSON, without references. Whatever the parser
// has against it goes to standard error, and the exit status says that there was something.
//
//     node read.mjs FILE

import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(await readFile(process.argv[2], "utf8"));
for (const found of diagnostics) console.error(`${found.path.join("/")}: ${found.message} (${found.code})`);
if (!document || diagnostics.length > 0) process.exit(1);
console.log(JSON.stringify(document.json(), (key, value) => (key.startsWith("x-parser-") ? undefined : value)));
