// One image: what it is made of and shares, how it wants to be run, and until when it stays.

import { get } from "../api.js";
import { make, section } from "../dom.js";
import { ago, asArgument, bytes, number, shortReference, until } from "../format.js";
import { copyButton, factList, refusal } from "../parts/facts.js";
import { recipe } from "../parts/recipe.js";

const words = (list) => (list.length ? list.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word))).join(" ") : "–");
const code = (text) => make("code", { className: "break" }, text);

function digest(name, text) {
  return make("span", { className: "copied" }, code(text), copyButton(`Copy the ${name}`, () => text));
}

function about(image) {
  const facts = factList();
  facts.set({
    "Size": bytes(image.size),
    "Inodes": number(image.inodes),
    "Ready": ago(image.ready_at),
    "Used": image.last_used ? ago(image.last_used) : "not yet",
    "Expires": image.pinned ? "never: it is pinned" : image.expires_at ? `${until(image.expires_at)}, unless it is used` : "never",
    "For": !image.private ? "everybody" : image.owner === null ? "whom its registry lets" : `uid ${image.owner}, and whom they name`,
  });
  return make("section", { "aria-label": "Image" }, facts);
}

function running(image) {
  const command = `dray run ${asArgument(image)}`;
  const facts = factList("rows");
  facts.set({
    "Entrypoint": code(words(image.entrypoint)),
    "Command": code(words(image.cmd)),
    "Directory": code(image.workdir || "/"),
    "Environment": image.env.length ? make("pre", {}, image.env.join("\n")) : "–",
    "Labels": Object.keys(image.labels).length ? make("pre", {}, Object.entries(image.labels).map(([name, value]) => `${name}=${value}`).join("\n")) : null,
  });
  return section("How it runs", make("p", { className: "copied" }, code(command), copyButton("Copy the command that runs it", () => command)), facts);
}

function making({ options, layout }) {
  const facts = factList("rows");
  const kept = [options.keep_owners && "owners", options.keep_setuid && "set-user-id bits", options.keep_devices && "devices"].filter(Boolean);
  const striped = layout && [layout.stripes !== null && `${number(layout.stripes)} stripes`, layout.stripe_size !== null && `of ${bytes(layout.stripe_size)}`,
    layout.pool && `in pool ${layout.pool}`, layout.mirrors > 1 && `${layout.mirrors} mirrors`, layout.warmed && "warmed"].filter(Boolean).join(", ");
  facts.set({
    "Compression": `${options.compression}, level ${options.level}, blocks of ${number(options.block_size / 1024)} KiB`,
    "Keeps": kept.join(", ") || "the plain files: no owners, no set-user-id bits, no devices",
    "Extended attributes": options.xattrs.join(", ") || "none",
    "On Lustre": striped || null,
    "But": layout?.fallback ?? null,
  });
  return section("How it was made", facts);
}

function identities(image) {
  const facts = factList("rows");
  facts.set({
    "Manifest": digest("digest of the manifest", image.manifest_digest),
    "Config": digest("digest of the config", image.config_digest),
    "File": digest("digest of the file", image.content_digest),
    "Image": digest("id of the image", image.id),
  });
  return section("Digests", facts);
}

export const image = {
  name: "image",
  title: "Image",
  path: "/images/:system/:type/:reference",
  inMenu: false,
  under: "images",
  open(holder, { parameters: { system, type, reference } }) {
    const told = make("p", { className: "empty" }, "Asking…");
    const tags = make("span", { className: "tags" }, system);
    holder.append(make("div", { className: "title" }, make("h1", { className: "mono break", title: reference }, shortReference(reference)), tags), told);
    let closed = false;
    const path = ["images", system, type, ...reference.split("/")].map(encodeURIComponent).join("/");
    get(`/${path}`, { sharing: true }).then((found) => {
      if (closed) return;
      tags.textContent = [found.system, found.type === "custom" && "imported", found.private && "private", found.pinned && "pinned"].filter(Boolean).join(" · ");
      told.replaceWith(about(found), recipe(found), make("div", { className: "columns" }, running(found), make("div", { className: "page" }, making(found), identities(found))));
    }).catch((problem) => { told.textContent = refusal(problem); });
    return { close() { closed = true; } };
  },
};
