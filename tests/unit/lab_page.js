// SPDX-License-Identifier: GPL-3.0-or-later
// A JupyterLab that consists of commands alone: node lab_page.js EXTENSION HUB ANSWERS. HUB is the hub's prefix. ANSWERS is JSON, an item for
// each time that the page may ask the hub: its notice, a status other than 200, null where nothing answers, or "hidden" for a page that nobody
// sees. Prints as JSON what was asked and shown.
"use strict";

const [extension, hubPrefix, answers] = process.argv.slice(2);
const asked = [];
const waits = [];
const done = [];
let shown = 0;
let later = null;
let answer = null;

globalThis.window = globalThis;
globalThis.document = { get hidden() { return answer === "hidden"; } };
globalThis.setTimeout = (call, wait) => { later = call; waits.push(wait); };
globalThis.fetch = async (address) => {
  asked.push(address);
  if (answer === null) throw new TypeError("network error");
  const status = typeof answer === "number" ? answer : 200;
  return { ok: status === 200, status, json: async () => ({ notice: answer }) };
};
AbortSignal.timeout = () => undefined;
console.debug = () => undefined;

const commands = {
  async execute(command, options) {
    done.push([command, options]);
    return command === "apputils:notify" ? `id${++shown}` : undefined;
  },
};

require(extension);

(async () => {
  const container = window._JUPYTERLAB["ananke-hub"];
  await container.init({});
  const plugin = (await container.get("./extension"))();
  const all = JSON.parse(answers);
  answer = all[0];
  plugin.activate({ paths: { urls: { hubPrefix: hubPrefix || undefined } }, restored: Promise.resolve(), commands });
  for (const one of all.slice(1)) {
    await new Promise(setImmediate);
    answer = one;
    later?.();
  }
  await new Promise(setImmediate);
  console.log(JSON.stringify({ id: plugin.id, autoStart: plugin.autoStart, asked, waits, done }));
})();
