/** A request as code for fal's clients, pointed at this gateway. A File in the request becomes code that reads it. */

// The package refuses to run without a key.
const PYTHON_WITHOUT_KEY = [
  "# pip install fal-client",
  "import os",
  "",
  'os.environ.setdefault("FAL_KEY", "any:key")',
  "",
];

/** A POSIX shell command. A here-document holds the body: a picture is longer than an argument may be. */
export function curl(input, { base, endpoint, needsKey }) {
  const write = {
    text: (value) => shellText(JSON.stringify(value)),
    name: (name) => shellText(JSON.stringify(name)),
    file: (file) => `"data:${shellText(file.type)};base64,$(base64 < ${shellWord(file.name)} | tr -d '\\n')"`,
    true: "true", false: "false", null: "null", indent: "  ",
  };
  return [
    `curl -s ${shellWord(`${base}/run/${endpoint}`)} \\`,
    ...(needsKey ? ['  -H "Authorization: Key $FAL_KEY" \\'] : []),
    '  -H "Content-Type: application/json" --data-binary @- <<JSON',
    literal(input, write),
    "JSON",
  ].join("\n");
}

/** Python, for the package fal-client from 0.12 on. */
export function python(input, { base, endpoint, needsKey }) {
  const write = {
    text: pythonText,
    name: pythonText,
    file: (file) => `fal_client.encode_file(${pythonText(file.name)})`,
    true: "True", false: "False", null: "None", indent: "    ",
  };
  return [
    ...(needsKey ? ['# pip install fal-client; export FAL_KEY="id:secret"'] : PYTHON_WITHOUT_KEY),
    "import fal_client",
    "import fal_client.client as client",
    "",
    `client.RUN_URL_FORMAT = ${pythonText(`${base}/run/`)}`,
    `client.QUEUE_URL_FORMAT = ${pythonText(`${base}/queue/`)}`,
    "",
    "result = fal_client.subscribe(",
    `    ${pythonText(endpoint)},`,
    `    arguments=${literal(input, write, write.indent)},`,
    ")",
    'print(result["images"][0]["url"])',
  ].join("\n");
}

/** JavaScript, for the package @fal-ai/client from 1.10 on. */
export function javascript(input, { base, endpoint, needsKey }) {
  const write = {
    text: JSON.stringify,
    name: (name) => (/^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name)),
    file: (file) => `new Blob([await readFile(${JSON.stringify(file.name)})], { type: ${JSON.stringify(file.type)} })`,
    true: "true", false: "false", null: "null", indent: "  ",
  };
  const body = literal(input, write, write.indent);
  return [
    "// npm install @fal-ai/client",
    ...(body.includes("await readFile(") ? ['import { readFile } from "node:fs/promises";'] : []),
    'import { fal } from "@fal-ai/client";',
    "",
    "fal.config({",
    ...(needsKey ? ["  credentials: process.env.FAL_KEY,"] : []),
    `  proxyUrl: { url: ${JSON.stringify(`${base}/api/fal/proxy`)}, when: "always" },`,
    "});",
    "",
    `const { data } = await fal.subscribe(${JSON.stringify(endpoint)}, {`,
    `  input: ${body},`,
    "});",
    "console.log(data.images[0].url);",
  ].join("\n");
}

/** `value` as a literal of a language; `write` says how the language writes each kind of value. */
function literal(value, write, indent = "") {
  const inner = indent + write.indent;
  const lines = (open, parts, close) =>
    parts.length ? `${open}\n${parts.map((part) => inner + part).join(",\n")}\n${indent}${close}` : open + close;
  if (value instanceof File) return write.file(value);
  if (Array.isArray(value)) return lines("[", value.map((item) => literal(item, write, inner)), "]");
  if (value !== null && typeof value === "object") {
    const parts = Object.entries(value).map(([name, item]) => `${write.name(name)}: ${literal(item, write, inner)}`);
    return lines("{", parts, "}");
  }
  if (typeof value === "string") return write.text(value);
  return typeof value === "number" ? String(value) : write[String(value)];
}

/** Text in a here-document, where a shell expands "$", "`" and "\". */
const shellText = (text) => text.replace(/[\\$`]/g, "\\$&");

const shellWord = (text) => (/^[\w./:@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** JSON's escapes of a text are Python's too. */
const pythonText = (text) => JSON.stringify(text);
