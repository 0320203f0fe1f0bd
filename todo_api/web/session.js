/**
 * Who is signed in: a bearer token, for this tab alone.
 *
 * APPSEC: the token is kept in sessionStorage: gone with the tab, never sent by the browser by itself (so no request
 * from another site can use it), and out of reach of any script but ours, which the page's policy sees to. What we
 * read in it is for showing; only the API decides what it is worth.
 */

import { Refused, request } from "./api.js";

const NAME = "todo-api.token";

export class Session {
  #token = null;
  #claims = {};
  #timer;

  /** `onChange(reason)` is called after each sign-in and sign-out; `reason` is a sentence, or "". */
  constructor(onChange) {
    this.onChange = onChange;
    const kept = sessionStorage.getItem(NAME);
    const claims = kept === null ? null : read(kept);
    if (claims !== null && !hasExpired(claims)) this.#keep(kept, claims);
  }

  get token() {
    return this.#token;
  }

  /** The user's id, or null when nobody is signed in. */
  get user() {
    return this.#token === null ? null : String(this.#claims.sub);
  }

  /** Sign in with a pasted token. Throws an Error with a sentence for the user, or Unreachable. */
  async signIn(pasted) {
    const token = pasted.trim().replace(/^bearer\s+/i, "");
    const claims = read(token);
    if (claims === null) throw new Error("This is not a token: it has three parts, with a dot between them.");
    if (hasExpired(claims)) throw new Error("This token has expired. Ask for a new one.");
    try {
      // Any name of an operation will do: 404 for a good token, 401 for a bad one.
      await request("GET", "/operations/none", { token });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 401) throw new Error(`The service does not accept this token: ${error.message}.`);
      if (error.isTemporary) throw error;
    }
    this.#keep(token, claims);
    this.onChange("");
  }

  signOut(reason = "") {
    this.#token = null;
    clearTimeout(this.#timer);
    sessionStorage.removeItem(NAME);
    this.onChange(reason);
  }

  /** The API answered 401, or the time in the token has come. */
  expire() {
    if (this.#token !== null) this.signOut("Your token is no longer accepted. Sign in again to go on.");
  }

  #keep(token, claims) {
    this.#token = token;
    this.#claims = claims;
    sessionStorage.setItem(NAME, token);
    clearTimeout(this.#timer);
    // setTimeout counts in 32 bits; a token that lives longer than that outlives the tab.
    const leftMs = claims.exp * 1000 - Date.now();
    if (leftMs < 2 ** 31) this.#timer = setTimeout(() => this.expire(), leftMs);
  }
}

function hasExpired(claims) {
  return claims.exp * 1000 <= Date.now();
}

/** Return the claims of a token with `sub` and `exp`, or null when it is not one. */
function read(token) {
  const parts = token.split(".");
  if (parts.length !== 3) return null;
  try {
    const bytes = Uint8Array.from(atob(parts[1].replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    return typeof claims.sub === "string" && Number.isFinite(claims.exp) ? claims : null;
  } catch {
    return null;
  }
}
