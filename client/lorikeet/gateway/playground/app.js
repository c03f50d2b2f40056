/** The playground: sends the form's request, follows it and shows its result. */

import { Api } from "./api.js";
import { ApiError } from "./api_error.js";
import { addCopyButton } from "./clipboard.js";
import { find, findAll } from "./dom.js";
import { History } from "./history.js";
import { InFlight } from "./in_flight.js";
import { KeyPanel } from "./key_panel.js";
import { Progress } from "./progress.js";
import { RequestForm } from "./request_form.js";
import { ResultView } from "./result_view.js";
import { SnippetTabs } from "./snippet_tabs.js";
import { fillSuggestions } from "./suggestions.js";

const CANCELLED = 499;

const [config, example] = await Promise.all(["config", "example"].map(readJson));
const key = new KeyPanel(config.needs_key);
const api = new Api(config.endpoint, () => key.value);
const form = new RequestForm(find("#request"), config);
const inFlight = new InFlight(api, new Progress());
const snippets = new SnippetTabs();
const history = new History(load);
const result = new ResultView({ onUseAsInput: usePicture, onKeepSeed: keepSeed });

start();

async function readJson(name) {
  return (await fetch(`playground/${name}.json`)).json();
}

function start() {
  find("#endpoint").textContent = config.endpoint;
  fillSuggestions(example.suggestions);
  findAll(".code-box").forEach(addCopyButton);
  form.root.addEventListener("input", showSnippets);
  form.root.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!inFlight.current) send();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.root.requestSubmit();
  });
  showFirst();
}

/** What the page shows at first: the request that a reload left running, the last result, or the example. */
function showFirst() {
  const left = inFlight.left;
  if (left) {
    form.write(left.input);
    run(() => left);
  } else if (history.entries.length) load(history.entries[0]);
  else form.write(example.request);
}

/** Upload the form's pictures, submit its request and show how it ends. */
async function send() {
  form.clearErrors();
  if (form.showProblems()) return;
  await run(async () => {
    const input = await form.readForSending(api);
    return { id: await api.submit(input), input };
  });
}

async function run(submit) {
  try {
    const entry = await inFlight.run(submit);
    history.add(entry);
    show(entry);
    find("#stage").scrollIntoView({ block: "nearest", behavior: "smooth" });
  } catch (error) {
    showFailure(error);
  }
}

/** Show an error where it belongs. */
function showFailure(error) {
  if (!(error instanceof ApiError)) form.showFailure(`The gateway cannot be reached: ${error.message}`);
  else if (error.status === 401) key.ask(error.message);
  else if (error.status === CANCELLED) form.showFailure("Cancelled");
  else if (error.fields.length) form.showFieldErrors(error.fields);
  else form.showFailure(error.message);
}

function show({ input, output }) {
  result.show(output, input.image_url ?? null);
}

function load(entry) {
  form.write(entry.input);
  show(entry);
}

function usePicture(url) {
  form.set("image_url", url);
  find("#init-picture").scrollIntoView({ block: "nearest" });
}

function keepSeed(seed) {
  form.set("seed", seed);
}

function showSnippets() {
  snippets.show(form.read(), { base: config.base_url, endpoint: config.endpoint, needsKey: config.needs_key });
}
