// Makes ecs-8.11.json and ecs-9.4.json from the npm package @elastic/ecs (Apache License 2.0, Copyright Elasticsearch B.V.):
//   npm install --ignore-scripts --prefix FOLDER @elastic/ecs@8.11.5
//   node tests/contract/ecs.mjs FOLDER/node_modules/@elastic/ecs [NAMES] > tests/contract/ecs-8.11.json
// NAMES is a file with the names of the fields that are wanted, one a line; without it all are written.
// A field is [type, is an array, allowed values or null].
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const folder = resolve(process.argv[2]);
const wanted = process.argv[3] && new Set(readFileSync(process.argv[3], "utf8").split("\n"));
const { EcsFlat } = createRequire(import.meta.url)(folder);
const { version } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
const known = Object.entries(EcsFlat).filter(([name]) => !wanted || wanted.has(name));
const fields = known.map(([name, field]) => {
  const allowed = field.allowed_values?.map((value) => value.name) ?? field.expected_values ?? null;
  return `  ${JSON.stringify(name)}: ${JSON.stringify([field.type, field.normalize.includes("array"), allowed])}`;
});
const from = `npm @elastic/ecs ${version}, EcsFlat; Apache License 2.0, Copyright Elasticsearch B.V.; made by ecs.mjs`;
console.log(`{\n "from": ${JSON.stringify(from)},\n "fields": {\n${fields.sort().join(",\n")}\n }\n}`);
