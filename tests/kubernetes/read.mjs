// Reads the YAML blocks of a Markdown file, holds each object in them against the schema of its kind, and prints them
// as a JSON array. Whatever does not follow its schema goes to standard error, and the exit status says so.
//
//     node read.mjs FILE

import { readFile } from "node:fs/promises";
import * as keda from "@kubernetes-models/keda/keda.sh/v1alpha1";
import * as apps from "kubernetes-models/apps/v1";
import * as autoscaling from "kubernetes-models/autoscaling/v2";
import { parseAllDocuments } from "yaml";

const kinds = { "apps/v1": apps, "autoscaling/v2": autoscaling, "keda.sh/v1alpha1": keda };
const text = await readFile(process.argv[2], "utf8");
const objects = [];
for (const [, block] of text.matchAll(/^```yaml\n(.*?)^```$/gms)) {
  for (const document of parseAllDocuments(block)) {
    if (document.errors.length > 0) throw document.errors[0];
    objects.push(document.toJS());
  }
}
for (const object of objects) {
  const { apiVersion, kind } = object;
  try {
    new kinds[apiVersion][kind](object).validate();
  } catch (error) {
    console.error(`${kind} of ${apiVersion}: ${error.message}`);
    process.exitCode = 1;
  }
}
console.log(JSON.stringify(objects));
