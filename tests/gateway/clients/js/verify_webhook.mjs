// Verifies a webhook's signature as fal documents it, with Node's own cryptography, which reads keys as strictly as
// RFC 8037 says. Standard input: {keys, headers, body}. Standard output: for each key, whether it verifies.
import { createHash, createPublicKey, verify } from "node:crypto";
import { text } from "node:stream/consumers";

const { keys, headers, body } = JSON.parse(await text(process.stdin));
const header = (name) => headers[`x-fal-webhook-${name}`];
const digest = createHash("sha256").update(body).digest("hex");
const signed = [header("request-id"), header("user-id"), header("timestamp"), digest].join("\n");
const signature = Buffer.from(header("signature"), "hex");

const verified = keys.map((key) => verify(null, Buffer.from(signed), createPublicKey({ key, format: "jwk" }), signature));
console.log(JSON.stringify(verified));
