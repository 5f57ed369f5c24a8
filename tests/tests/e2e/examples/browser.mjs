// A browser as far as examples/browser/index.html needs one. Lines of standard input are typed into the form; the text
// of the log is printed whenever it has changed; the end of the input ends the program.
import { createInterface } from "node:readline";

class Element {
  children = [];
  appendChild(child) { this.children.push(child); return child; }
  replaceChildren() { this.children = []; }
}
const elements = { status: new Element(), log: new Element(), form: new Element(), text: new Element() };
globalThis.document = {
  createElement: () => new Element(),
  getElementById: (id) => elements[id] ?? elements.log.children.find((child) => child.id === id) ?? null,
};
globalThis.location = { search: `?gateway=${process.env.GATEWAY}`, hash: `#${process.env.TOKEN}` };
globalThis.localStorage = {};
let printed = "";
setInterval(() => {
  const text = elements.log.children.map((child) => child.textContent).join("\n");
  if (text !== printed) console.log(text);
  printed = text;
}, 20);
createInterface({ input: process.stdin })
  .on("line", (line) => { elements.text.value = line; elements.form.onsubmit({ preventDefault() {} }); })
  .on("close", () => process.exit(0));
