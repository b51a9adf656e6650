// The SDKs for Node, as their documentation shows them. Prints what each saw, as JSON.
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText } from "ai";
import OpenAI from "openai";
import { ResponsesWS } from "openai/resources/responses/ws";

const { gateway, ada, eve, max } = JSON.parse(process.argv[2]);
const messages = [{ role: "user", content: "Hello." }];

const openai = (name, apiKey, options) =>
  new OpenAI({ baseURL: `${gateway}/${name}/v1`, apiKey, ...options });
const anthropic = (name, apiKey, options) =>
  new Anthropic({ baseURL: `${gateway}/${name}`, apiKey, ...options });
const chat = (client) => client.chat.completions.create({ model: "m", messages });
const message = (client) => client.messages.create({ model: "m", max_tokens: 9, messages });

/** Ask until it is refused, and tell how. */
async function refused(ask) {
  for (let asked = 0; asked < 9; asked++) {
    try {
      await ask();
    } catch (error) {
      const { name } = error.constructor;
      if (error.statusCode) return { status: error.statusCode, code: error.data.error.code };  // Vercel's
      const code = error.code ?? error.error?.error?.code;
      const wait = error.headers?.get("retry-after") ?? null;
      return { name, status: error.status, code, waits: wait === null ? null : Number(wait) > 0 };
    }
  }
  throw new Error("it was never refused");
}

async function openai_sdk() {
  const client = openai("ai", ada);
  const whole = await chat(client);
  let text = "";
  for await (const chunk of await client.chat.completions.create({ model: "m", messages, stream: true }))
    text += chunk.choices[0].delta.content ?? "";
  const kinds = [];
  for await (const event of await client.responses.create({ model: "m", input: "Hello.", stream: true }))
    kinds.push(event.type);
  return { model: whole.model, whole: whole.choices[0].message.content, text, last: kinds.at(-1) };
}

async function anthropic_sdk() {
  const client = anthropic("claude", ada);
  const whole = await message(client);
  let text = "";
  const stream = client.messages.stream({ model: "m", max_tokens: 9, messages });
  stream.on("text", (piece) => (text += piece));
  const { stop_reason } = await stream.finalMessage();
  return { model: whole.model, whole: whole.content[0].text, text, last: stop_reason };
}

async function vercel_sdk() {
  const answers = [];
  for (const model of [
    createOpenAI({ baseURL: `${gateway}/ai/v1`, apiKey: ada }).chat("m"),
    createOpenAI({ baseURL: `${gateway}/ai/v1`, apiKey: ada }).responses("m"),
    createAnthropic({ baseURL: `${gateway}/claude/v1`, apiKey: ada })("m"),
  ]) {
    const { text } = await generateText({ model, prompt: "Hello." });
    let streamed = "";
    for await (const piece of streamText({ model, prompt: "Hello." }).textStream) streamed += piece;
    answers.push(text, streamed);
  }
  return answers;
}

function openai_websocket() {
  const socket = new ResponsesWS(openai("ai", ada));
  return new Promise((resolve, reject) => {
    const models = [];
    const create = () => socket.send({ type: "response.create", model: "m", input: "Hello." });
    socket.on("response.completed", ({ response }) => {
      models.push(response.model);
      if (models.length < 3) return create();
      socket.close();
      resolve(models);
    });
    socket.on("error", reject);
    create();
  });
}

const seen = {
  openai: await openai_sdk(),
  anthropic: await anthropic_sdk(),
  vercel: await vercel_sdk(),
  websocket: await openai_websocket(),
  // A provider out of keys for a second: both wait as they are told, and ask again.
  openai_waits: (await chat(openai("one", ada, { maxRetries: 5 }))).model,
  anthropic_waits: (await message(anthropic("claude-one", ada, { maxRetries: 5 }))).model,
  openai_limited: await refused(() => chat(openai("ai", eve, { maxRetries: 0 }))),
  anthropic_limited: await refused(() => message(anthropic("claude", eve, { maxRetries: 0 }))),
  openai_spent: await refused(() => chat(openai("ai", max))),
  anthropic_spent: await refused(() => message(anthropic("claude", max))),
  openai_off: await refused(() => chat(openai("off", ada))),
  anthropic_off: await refused(() => message(anthropic("claude-off", ada))),
  vercel_off: await refused(() =>
    generateText({
      model: createOpenAI({ baseURL: `${gateway}/off/v1`, apiKey: ada }).chat("m"),
      prompt: "Hello.",
    }),
  ),
};
console.log(JSON.stringify(seen));
