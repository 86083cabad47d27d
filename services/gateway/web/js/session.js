// Who looks: a token that lives in this tab only. `dray dashboard` hands it over in the fragment,
// which no server and no log sees, and which leaves the address bar at once.

const KEY = "dray.token";
const IN_FRAGMENT = /^#token=([A-Za-z0-9._~+/=-]+)$/;

export function token() {
  return sessionStorage.getItem(KEY);
}

export function keep(text) {
  sessionStorage.setItem(KEY, text);
}

export const isAdmin = (who) => who.scopes.includes("admin");

export function forget() {
  sessionStorage.removeItem(KEY);
}

/** Takes over a token that came with the address. */
export function takeFromAddress() {
  const found = IN_FRAGMENT.exec(location.hash);
  if (!found) return;
  keep(found[1]);
  history.replaceState(null, "", "#/");
}
