// Runs one call of one client. Standard input: {client, call, gateway, key, route, ...arguments}. The last line of
// standard output: {value} or {error}, as JSON.
import { text } from "node:stream/consumers";

const described = (error) => ({
  type: error.name,
  message: error.message,
  status: error.status ?? error.statusCode,
  body: error.body,
  request_id: error.requestId,
  field_errors: error.fieldErrors,
  is_user_timeout: error.isUserTimeout,
});

async function answer({ call, ...job }) {
  if (job.client === "@ai-sdk/fal") return (await import("./ai_sdk.mjs"))[call](job);
  const { connect } = await import("./connect.mjs");
  return (await import("./calls.mjs"))[call](await connect(job), job);
}

const result = await answer(JSON.parse(await text(process.stdin))).then(
  (value) => ({ value }),
  (error) => ({ error: described(error) }),
);
console.log(`\n${JSON.stringify(result)}`);
