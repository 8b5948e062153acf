// Submits a task document, waits for its end and prints its result: node submit.js ../tasks/hello.json

import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { components, paths } from "./supercargo.js";

const client = createClient<paths>({
  baseUrl: process.env.SUPERCARGO_URL,
  headers: { Authorization: `Bearer ${process.env.SUPERCARGO_TOKEN}` },
});
const body: components["schemas"]["TaskSpec"] = JSON.parse(readFileSync(process.argv[2]!, "utf8"));

const submitted = await client.POST("/api/v1/tasks", { params: { query: { wait: "50s" } }, body });
if (submitted.error) {
  console.error(`${submitted.error.code}: ${submitted.error.detail}`);
  process.exit(1);
}
const { id } = submitted.data;
const result = await client.GET("/api/v1/tasks/{id}/result", { params: { path: { id } } });
console.log(JSON.stringify(result.data));
