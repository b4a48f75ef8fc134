// SPDX-License-Identifier: GPL-3.0-or-later
// Says in JupyterLab what the hub says on its own pages before an update. This is what bundlers make of an extension, written by hand:
// it needs nothing of JupyterLab's but two commands.
"use strict";

(() => {
  const NAME = "ananke-hub";
  const OFTEN = 10_000; // milliseconds
  const SPREAD = 5_000; // fifty pages shall not ask all at once

  /** Returns what shows a text until it is called with another one, or with "". */
  function teller(commands) {
    let told = "";
    let id = "";
    return async (text) => {
      if (text === told) return;
      told = text;
      if (id) await commands.execute("apputils:dismiss-notification", { id });
      id = text && await commands.execute("apputils:notify", { message: text, type: "warning", options: { autoClose: false } });
    };
  }

  function activate(app) {
    const hub = app.paths.urls.hubPrefix;
    if (!hub) return; // no hub has started this JupyterLab
    const tell = teller(app.commands);

    async function ask() {
      // without cookies, nobody is looked up in the hub's database
      const answer = await fetch(`${hub}ananke/notice`, { credentials: "omit", cache: "no-store", signal: AbortSignal.timeout(OFTEN) });
      if (answer.ok) await tell((await answer.json()).notice);
    }

    function again() {
      setTimeout(again, OFTEN + SPREAD * Math.random());
      // while the hub is away, what it said last stays
      if (!document.hidden) ask().catch((error) => console.debug(`${NAME}: ${error}`));
    }

    app.restored.then(again);
  }

  const plugin = { id: `${NAME}:notice`, description: "Says when the hub is about to be updated.", autoStart: true, activate };
  window._JUPYTERLAB ??= {};
  window._JUPYTERLAB[NAME] = { init() {}, get: async () => () => plugin };
})();
