// Makes ecs-8.11.json from the npm package @elastic/ecs 8.11.5 (Apache License 2.0, Copyright Elasticsearch B.V.):
//   npm install --ignore-scripts --prefix FOLDER @elastic/ecs@8.11.5
//   node tests/contract/ecs.mjs FOLDER/node_modules/@elastic/ecs > tests/contract/ecs-8.11.json
// A field is [type, is an array, allowed values or null].
import { createRequire } from "node:module";
import { resolve } from "node:path";

const folder = resolve(process.argv[2]);
const { EcsFlat } = createRequire(import.meta.url)(folder);
const fields = Object.entries(EcsFlat).map(([name, field]) => {
  const allowed = field.allowed_values?.map((value) => value.name) ?? field.expected_values ?? null;
  return `  ${JSON.stringify(name)}: ${JSON.stringify([field.type, field.normalize.includes("array"), allowed])}`;
});
const from = "npm @elastic/ecs 8.11.5, EcsFlat; Apache License 2.0, Copyright Elasticsearch B.V.; made by ecs.mjs";
console.log(`{\n "from": ${JSON.stringify(from)},\n "fields": {\n${fields.sort().join(",\n")}\n }\n}`);
