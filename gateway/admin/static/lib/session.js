// Who is looking, and what the role of the key lets do. The gateway refuses the rest anyway; this only keeps from
// offering what would be refused.

import { call } from "./api.js";

const ROLES = ["read", "operate", "admin"];
let who = { key: null, role: "read" };

export const me = () => who;

/** Whether the role of this session reaches that far. */
export const may = (role) => ROLES.indexOf(who.role) >= ROLES.indexOf(role);

/** Asks the gateway; whether it knows who this is, or a login is needed first. Throws ApiError. */
export async function recognise() {
  who = await call("GET", "ui/session");
  return who.role !== null;
}

export async function logIn(key) {
  who = await call("POST", "session", { body: { key } });
  return who;
}

export const logOut = () => call("DELETE", "session");
