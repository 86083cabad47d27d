// Draws openapi.json for people. Everything is set as text, never as HTML.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
const SHOWN_DEPTH = 3;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function link(text, href) {
  const made = element("a", text);
  made.href = href;
  return made;
}

/** A few words of Markdown: paragraphs, and `code`. */
function prose(text) {
  return text.split(/\n\s*\n/).map((paragraph) => {
    const made = element("p");
    paragraph.replaceAll("\n", " ").split(/(`[^`]+`)/).forEach((part) => {
      made.append(part.startsWith("`") ? element("code", part.slice(1, -1)) : part);
    });
    return made;
  });
}

let api = null;

const nameOf = (schema) => schema?.$ref?.split("/").pop();
const resolve = (schema) => (schema?.$ref ? api.components.schemas[nameOf(schema)] : schema ?? {});

/** The type of a value in few words, with links to models. */
function typeOf(schema) {
  if (schema?.$ref) return [link(nameOf(schema), `#model-${nameOf(schema)}`)];
  if (schema?.allOf?.length === 1) return typeOf(schema.allOf[0]);
  const options = schema?.anyOf ?? schema?.oneOf;
  if (options) return options.flatMap((option, n) => [...(n ? [" or "] : []), ...typeOf(option)]);
  if (schema?.enum) return [`one of ${schema.enum.join(", ")}`];
  if (schema && "const" in schema) return [JSON.stringify(schema.const)];
  if (schema?.type === "array") return ["list of ", ...typeOf(schema.items ?? {})];
  if (schema?.type === "object" && schema.additionalProperties) {
    return ["map to ", ...typeOf(schema.additionalProperties)];
  }
  const words = [schema?.format === "date-time" ? "time" : schema?.type ?? "anything"];
  if (schema?.pattern) words.push(` like ${schema.pattern}`);
  const least = schema?.minimum ?? schema?.exclusiveMinimum, most = schema?.maximum;
  if (least !== undefined || most !== undefined) words.push(` ${least ?? ""}…${most ?? ""}`);
  if (schema?.maxLength) words.push(`, at most ${schema.maxLength} characters`);
  return words;
}

function field(name, schema, required, about) {
  const made = element("div", undefined, "field");
  made.append(element("code", name));
  const type = element("span", undefined, "type");
  type.append(...typeOf(schema));
  made.append(type);
  if (required) made.append(element("span", "required", "must"));
  if (schema?.default !== undefined) {
    made.append(element("span", `default ${JSON.stringify(schema.default)}`, "type"));
  }
  const text = about ?? schema?.description;
  if (text) made.append(element("p", text, "about"));
  return made;
}

/** The fields of a model, and of those within it. */
function fields(schema, depth = 0) {
  const made = element("div", undefined, "fields");
  const model = resolve(schema);
  const options = model.anyOf ?? (model.allOf?.length === 1 ? model.allOf : null);
  if (options) {
    options.filter((each) => each.type !== "null").forEach((each) => {
      made.append(element("p", nameOf(each) ?? "", "about"), fields(each, depth));
    });
    return made;
  }
  for (const [name, inner] of Object.entries(model.properties ?? {})) {
    const shown = field(name, inner, model.required?.includes(name));
    const nested = resolve(inner.type === "array" ? inner.items : inner);
    if (nested.properties && depth < SHOWN_DEPTH) shown.append(fields(nested, depth + 1));
    made.append(shown);
  }
  return made;
}

function parameters(operation, article) {
  if (!operation.parameters?.length) return;
  article.append(element("h4", "Parameters"));
  const list = element("div", undefined, "fields");
  for (const one of operation.parameters) {
    const shown = field(one.name, one.schema, one.required, one.description);
    shown.querySelector("code").after(element("span", `in ${one.in}`, "type"));
    list.append(shown);
  }
  article.append(list);
}

function body(operation, article) {
  const schema = operation.requestBody?.content?.["application/json"]?.schema;
  if (!schema) return;
  article.append(element("h4", "Body (JSON)"), fields(schema));
}

function response(status, given) {
  const made = element("details");
  const summary = element("summary");
  summary.append(element("span", status, `status ${status < "400" ? "ok" : "no"}`), ...prose(given.description).flatMap((each) => [...each.childNodes]));
  made.append(summary);
  for (const [name, header] of Object.entries(given.headers ?? {})) {
    made.append(field(name, header.schema, false, header.description));
  }
  for (const [type, content] of Object.entries(given.content ?? {})) {
    made.append(element("p", type, "quiet"));
    if (type === "application/json") made.append(fields(content.schema));
  }
  for (const [kind, schema] of Object.entries(given["x-events"] ?? {})) {
    const shown = field(`event: ${kind}`, schema, false);
    shown.append(fields(schema));
    made.append(shown);
  }
  if (status < "300") made.open = true;
  return made;
}

function example(method, path, operation) {
  const parts = ["curl"];
  if (method !== "get") parts.push(`-X ${method.toUpperCase()}`);
  const anybody = operation.security.some((each) => Object.keys(each).length === 0);
  const scope = operation["x-scope"];
  if (!anybody || scope !== "read") {
    const wanted = scope === "read" ? "" : ` --scope ${scope}`;
    parts.push(`-H "Authorization: Bearer $(dray token${wanted})"`);
  }
  const schema = operation.requestBody?.content?.["application/json"]?.schema;
  if (schema) {
    const model = resolve(schema);
    const needed = (model.required ?? []).map((name) => [name, sample(model.properties[name])]);
    parts.push("-H 'Content-Type: application/json'");
    parts.push(`-d '${JSON.stringify(Object.fromEntries(needed))}'`);
  }
  parts.push(`'${location.origin}${path.replaceAll("{", "").replaceAll("}", "").replace(/:\.\+/g, "")}'`);
  return element("pre", parts.join(" \\\n  "));
}

function sample(schema) {
  const plain = resolve(schema?.allOf?.[0] ?? schema);
  if (plain.enum) return plain.enum[0];
  return { array: [], object: {}, integer: 1, number: 1, boolean: true }[plain.type] ?? "…";
}

function access(operation) {
  const anybody = operation.security.some((each) => Object.keys(each).length === 0);
  return element("span", anybody ? "open to the public, if the site is" : "needs to know who you are", "note");
}

function draw(method, path, operation) {
  const article = element("article");
  article.id = operation.operationId;
  article.dataset.words = `${method} ${path} ${operation.summary} ${operation.description ?? ""}`.toLowerCase();
  article.append(element("h3", operation.summary));
  const line = element("p", undefined, "path");
  line.append(element("span", method.toUpperCase(), `method ${method}`), element("code", path));
  article.append(line, access(operation));
  if (operation.description) article.append(...prose(operation.description));
  parameters(operation, article);
  body(operation, article);
  article.append(element("h4", "Answers"));
  for (const [status, given] of Object.entries(operation.responses).sort()) {
    article.append(response(status, given));
  }
  article.append(element("h4", "Example"), example(method, path, operation));
  return article;
}

function operations() {
  const byTag = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((each) => each in methods)) {
      const operation = methods[method];
      const tag = operation.tags[0];
      if (!byTag.has(tag)) byTag.set(tag, []);
      byTag.get(tag).push([method, path, operation]);
    }
  }
  return byTag;
}

function models() {
  const holder = document.getElementById("models");
  for (const [name, model] of Object.entries(api.components.schemas)) {
    const article = element("article");
    article.id = `model-${name}`;
    article.append(element("h3", name));
    if (model.description) article.append(...prose(model.description));
    if (model.enum) article.append(element("p", model.enum.join(", ")));
    article.append(fields(model, SHOWN_DEPTH));
    holder.append(article);
  }
  holder.hidden = false;
}

function filter() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const article of document.querySelectorAll("#operations article")) {
    const wanted = words.every((word) => article.dataset.words.includes(word));
    article.hidden = !wanted;
    document.querySelector(`nav a[href="#${article.id}"]`).parentElement.hidden = !wanted;
    count += wanted;
  }
  for (const section of document.querySelectorAll("#operations section, #contents section")) {
    section.hidden = !section.querySelector("article:not([hidden]), li:not([hidden])");
  }
  document.getElementById("found").textContent = words.length ? `${count} operations` : "";
}

async function start() {
  const status = document.getElementById("status");
  try {
    const answer = await fetch("/api/v1/openapi.json");
    if (!answer.ok) throw new Error(`the gateway answered ${answer.status}`);
    api = await answer.json();
  } catch (problem) {
    status.textContent = `The description cannot be read: ${problem.message}`;
    return;
  }
  status.remove();
  document.getElementById("about").append(...prose(api.info.description));
  for (const [tag, found] of operations()) {
    const section = element("section");
    section.append(element("h2", tag));
    const contents = element("section");
    const list = element("ul");
    contents.append(element("h2", tag), list);
    for (const [method, path, operation] of found) {
      section.append(draw(method, path, operation));
      const item = element("li");
      const entry = link("", `#${operation.operationId}`);
      entry.append(element("span", method.toUpperCase(), `method ${method}`), operation.summary);
      item.append(entry);
      list.append(item);
    }
    document.getElementById("operations").append(section);
    document.getElementById("contents").append(contents);
  }
  models();
  document.getElementById("filter").addEventListener("input", filter);
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

start();
