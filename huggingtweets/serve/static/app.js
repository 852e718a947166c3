"use strict";
// Has posts written and shows them as they come. Everything that comes is put in as text.
for (const form of document.querySelectorAll("form.write")) {
  const models = JSON.parse(form.dataset.models);
  const lists = [...document.querySelectorAll(".posts")];
  const error = document.querySelector(".error[role=alert]");
  const legend = document.querySelector(".legend");
  const stop = form.querySelector(".stop");
  let control = null;
  const say = (text) => { error.textContent = text; error.hidden = !text; };
  stop.addEventListener("click", () => control && control.abort());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (control) control.abort();
    control = new AbortController();
    const own = control;
    say("");
    stop.hidden = false;
    try {
      await Promise.all(models.map((model, at) => write(model, lists[at], own)));
    } catch (err) {
      if (err.name !== "AbortError") say(err.message);
    }
    if (control === own) stop.hidden = true;
  });

  async function write(model, list, own) {
    const prompt = form.elements.prompt.value;
    const answer = await fetch("/v1/completions", {
      method: "POST",
      headers: {"content-type": "application/json"},
      signal: own.signal,
      body: JSON.stringify({
        model, prompt, stream: true,
        n: Number(form.elements.n.value), temperature: Number(form.elements.temperature.value),
      }),
    });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    const posts = new Map();
    let rest = "";
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const data = part.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const message = JSON.parse(data);
        if (message.error) throw new Error(message.error.message);
        for (const choice of message.choices) show(list, posts, prompt, choice);
      }
    }
  }

  function show(list, posts, prompt, choice) {
    if (!posts.has(choice.index)) {
      const item = document.createElement("li");
      const head = document.createElement("span");
      head.className = "prompt";
      head.textContent = prompt;
      const text = document.createElement("span");
      item.append(head, text);
      list.prepend(item);
      posts.set(choice.index, {item, text, whole: ""});
    }
    const post = posts.get(choice.index);
    post.whole += choice.text;
    post.text.textContent = post.whole;
    if (!choice.finish_reason) return;
    const letters = [...post.whole];  // code points, as the server counts; a string counts halves
    let from = 0;
    post.text.textContent = "";
    for (const [start, end] of choice.copied || []) {
      const mark = document.createElement("mark");
      mark.textContent = letters.slice(start, end).join("");
      post.text.append(letters.slice(from, start).join(""), mark);
      from = end;
      legend.hidden = false;
    }
    post.text.append(letters.slice(from).join(""));
    post.item.dataset.finish = choice.finish_reason;
    if (choice.finish_reason === "content_filter") {
      const why = document.createElement("span");
      why.className = "why";
      why.textContent = "Cut short: what followed must not be shown.";
      post.item.append(why);
    }
  }
}
