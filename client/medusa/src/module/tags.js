"use strict"
/**
 * Which tags a result carries and which a change clears.
 *
 * | tag | cleared when |
 * |---|---|
 * | `Type:id` | the row changed in any way |
 * | `Type:list:*` | any row of the type changed, came or went |
 * | `Type:new` | a row of the type came: created, restored |
 * | `Type:cascade` | rows of the type may have changed without an event of their own |
 *
 * The first two are Medusa's and mean what they mean there. The others let a result depend on less than everything: a
 * product's page carries `Product:prod_1`, its variants' ids and `ProductVariant:new`, and stays while another
 * product's variant changes. Tags come from what was read (see reads.js), so that an empty answer has them, too.
 */
const MEDUSA_OPERATIONS = ["created", "updated", "deleted", "restored", "attached", "detached"]
const COMING = new Set(["created", "restored", "attached", "detached"])
const GOING = new Set(["deleted", "restored"])

/** What an id can be. */
const IDS = new Set(["string", "number", "bigint"])

const one = (type, id) => `${type}:${id}`
const any = (type) => `${type}:list:*`
const coming = (type) => `${type}:new`
const cascade = (type) => `${type}:cascade`

/** All tags that depend on a type's rows as a whole. */
function whole(type) {
  return [any(type), coming(type), cascade(type)]
}

/** `product-variant` and `product_variant` are `ProductVariant`, as Medusa makes it of an event's name. */
function typeOfEvent(part) {
  const camel = /^([a-zA-Z]+)(([A-Z]([a-z]+))+)$/.test(part)
    ? part
    : part.toLowerCase().replace(/[^a-zA-Z0-9]+(.)/g, (_, letter) => letter.toUpperCase())
  return camel.charAt(0).toUpperCase() + camel.slice(1)
}

/**
 * What an event clears.
 * @param {{ name: string, data: any }} event
 * @param {import("./schema").Schema} schema
 */
function tagsOfEvent({ name, data }, schema) {
  const parts = String(name).split(".")
  const operation = parts.at(-1)
  const type = typeOfEvent(parts.at(-2) ?? parts[0])
  const tags = new Set()
  for (const item of Array.isArray(data) ? data : [data]) {
    const ids = Array.isArray(item?.id) ? item.id : [item?.id]
    for (const id of ids) for (const tag of tagsOfChange(type, id, operation, schema)) tags.add(tag)
  }
  return [...tags]
}

/** What a change of one row clears. */
function tagsOfChange(type, id, operation, schema) {
  const tags = []
  if (IDS.has(typeof id)) tags.push(one(type, id))
  if (MEDUSA_OPERATIONS.includes(operation)) tags.push(any(type))
  if (COMING.has(operation)) tags.push(coming(type))
  // Rows that hang on it come and go with it, and not each of them has an event.
  if (GOING.has(operation) && schema) for (const other of schema.around(type)) if (other !== type) tags.push(...whole(other))
  return tags
}

/**
 * `Type:id` of every row of a result, by its place in the schema or the beginning of its id.
 * @param {any} data rows, one row, or `{ rows, metadata }`
 * @param {string | undefined} type of the rows at the top
 * @param {import("./schema").Schema} schema
 * @param {Set<string>} into
 */
function tagsOfRows(data, type, schema, into, seen = new Set()) {
  if (!data || typeof data !== "object") return
  if (Array.isArray(data)) {
    for (const item of data) tagsOfRows(item, type, schema, into, seen)
    return
  }
  if (seen.has(data)) return
  seen.add(data)
  const known = schema.typeOfId(data.id) ?? type
  if (known && IDS.has(typeof data.id)) into.add(one(known, data.id))
  for (const field of Object.keys(data)) {
    const value = data[field]
    if (value && typeof value === "object") tagsOfRows(value, known && schema.relation(known, field)?.type, schema, into, seen)
  }
}

module.exports = { IDS, one, any, coming, cascade, whole, typeOfEvent, tagsOfEvent, tagsOfChange, tagsOfRows }
