// OpenAIRealtimeWS over a change of its provider, as its documentation shows; what it saw, as JSON.
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

const { gateway, ada, eve } = JSON.parse(process.argv[2]);

const connect = (apiKey, options) =>
  new OpenAIRealtimeWS(
    { model: "m", ...options },
    new OpenAI({ baseURL: `${gateway}/ai/v1`, apiKey }),
  );

/** Open one that is refused, and tell how. */
function refused(apiKey) {
  const socket = connect(apiKey);
  return new Promise((resolve, reject) => {
    socket.on("error", (error) => resolve([error.constructor.name, error.message]));
    socket.socket.on("open", () => reject(new Error("it was opened")));
  });
}

/** Have turns until two were answered after the provider had changed. */
function turns(socket) {
  const answers = [], refusals = {};
  let reconnected = 0, text = "";
  const restore = () =>
    socket.send({ type: "session.update", session: { type: "realtime", output_modalities: ["text"] } });
  return new Promise((resolve, reject) => {
    socket.on("session.created", restore);
    socket.on("session.updated", () => socket.send({ type: "response.create" }));
    socket.on("response.output_text.delta", ({ delta }) => (text += delta));
    socket.on("reconnected", () => (reconnected += 1));
    socket.on("error", reject);
    socket.on("response.done", async ({ response }) => {
      answers.push([response.metadata.model, text, response.usage.output_tokens]);
      text = "";
      if (answers.length === 1) refusals.cap = await refused(ada);
      if (answers.filter(([model]) => model === "m@south").length === 2) {
        socket.close();
        return resolve({ answers, reconnected, refusals });
      }
      setTimeout(() => {
        if (socket.socket.readyState === 1) socket.send({ type: "response.create" });
      }, 20);
    });
  });
}

const options = { reconnect: true, reconnectInitialDelay: 10 };
const { answers, reconnected, refusals } = await turns(connect(ada, options));
refusals.key = await refused("wrong");
refusals.model = await refused(eve);
console.log(JSON.stringify({ answers, reconnected, refusals }));
