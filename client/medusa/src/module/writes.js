"use strict"
/**
 * Writes of modules, noticed where they happen. Medusa clears by events, and some writes send none (a price list's
 * status, products put into a category); others send theirs at the end of a long workflow. So each writing method of a
 * module whose rows are cached clears what it may have changed as soon as it has returned.
 */
const { any, coming, one, cascade, tagsOfChange, whole } = require("./tags")
const { MODULES } = require("./policy")

/** Further modules of which some rows are cached. */
const WATCHED = new Set([...MODULES, "fulfillment", "promotion", "payment", "inventory"])
const WRITES = /^(create|update|upsert|delete|softDelete|restore|add|remove|set|archive|deactivate|activate|revoke|adjust)(?=[A-Z]|$)/
const OPERATIONS = {
  create: "created",
  upsert: "created",
  restore: "restored",
  add: "created",
  delete: "deleted",
  softDelete: "deleted",
}
/** What shoppers cause in modules of which only the configuration is cached. */
const OF_SHOPPERS = /^(create|update|upsert|delete|softDelete|restore|cancel|capture|refund|add|remove|set)(Payment(?!Provider)|Refund|Capture|AccountHolder|Fulfillments?$|Fulfillment(?!Set|Provider)|ReturnFulfillment|CampaignBudgetUsage)/

/** Stands in for `ReservationItem:list:*`, which every order clears, where the items concerned are known. */
const UNSURE = "ReservationItem:unsure"

/** All ids in arguments: strings, objects with `id`, lists of those. */
function idsOf(value, into = new Set(), depth = 0) {
  if (typeof value === "string") {
    if (/^[a-z]+_/.test(value)) into.add(value)
  } else if (Array.isArray(value) && depth < 3) {
    for (const item of value) idsOf(item, into, depth + 1)
  } else if (value && typeof value === "object" && depth < 3) {
    if (typeof value.id === "string" || Array.isArray(value.id)) idsOf(value.id, into, depth + 1)
    if (value.selector) idsOf(value.selector, into, depth + 1)
  }
  return into
}

/** Whether what is written reaches beyond the row: rows within it, or ids of other rows. */
function reachesFurther(value, depth = 0) {
  if (Array.isArray(value)) return depth < 3 && value.some((item) => reachesFurther(item, depth + 1))
  if (!value || typeof value !== "object") return false
  return Object.entries(value).some(([name, of]) => {
    if (name === "metadata" || name === "id") return false
    if (name.endsWith("_ids")) return true
    return Array.isArray(of) || (of && typeof of === "object" && !(of instanceof Date) && depth < 3)
  })
}

/** Ids of inventory items, wherever they stand. */
function itemsOf(value, into, depth = 0) {
  if (typeof value === "string") {
    if (value.startsWith("iitem_")) into.add(value)
  } else if (value && typeof value === "object" && depth < 4) {
    for (const of of Object.values(value)) itemsOf(of, into, depth + 1)
  }
  return into
}

/**
 * Stock: every order changes some, so it is told apart by item. What is available of a variant is read together with
 * its items (Medusa's availability query), whose ids it carries.
 */
function tagsOfStock(args, result) {
  const items = itemsOf(result, itemsOf(args, new Set()))
  const tags = ["InventoryLevel", "InventoryItem", "ReservationItem"].map(any)
  if (items.size === 0) return [...tags, UNSURE, ...["InventoryLevel", "InventoryItem"].flatMap(whole)]
  return [...tags, ...[...items].map((id) => one("InventoryItem", id))]
}

/**
 * What a call of a writing method may have changed.
 * @returns {string[] | undefined} undefined: it is no writing method
 */
function tagsOfWrite(schema, service, method, args, result) {
  const verb = WRITES.exec(method)?.[1]
  if (!verb || OF_SHOPPERS.test(method)) return undefined
  const type = schema.named(service, method.slice(verb.length))
  if (service === "inventory") return tagsOfStock(args, result)
  // What exactly a method with a name of its own writes is not known: everything of the module then.
  if (!type || service === "pricing") return schema.typesOf(service).flatMap(whole)
  const ids = idsOf(args[0])
  for (const item of Array.isArray(result) ? result : [result]) if (typeof item?.id === "string") ids.add(item.id)
  const operation = OPERATIONS[verb] ?? "updated"
  const tags = new Set([any(type)])
  // By a selector of other fields: any row.
  if (ids.size === 0) for (const tag of whole(type)) tags.add(tag)
  for (const id of ids) {
    tags.add(one(schema.typeOfId(id) ?? type, id))
    for (const tag of tagsOfChange(type, id, operation, schema)) tags.add(tag)
  }
  const written = typeof args[0] === "string" || args.length > 1 ? args.slice(0, 2) : args[0]
  if (verb !== "delete" && verb !== "softDelete" && verb !== "restore" && reachesFurther(written)) {
    for (const other of schema.around(type)) if (other !== type) tags.add(any(other)).add(coming(other)).add(cascade(other))
  }
  return [...tags]
}

/** The writing methods of a service, by name. */
function* writingMethods(service) {
  const seen = new Set()
  for (let at = service; at && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const name of Object.getOwnPropertyNames(at)) {
      if (seen.has(name) || name.endsWith("_") || !WRITES.test(name)) continue
      seen.add(name)
      if (typeof service[name] === "function") yield name
    }
  }
}

/**
 * Wraps the writing methods of a service.
 * @param {any} service
 * @param {string} name of the module
 * @param {(tags: string[]) => Promise<unknown>} clear
 */
function watch(service, name, schema, clear) {
  for (const method of writingMethods(service)) {
    const original = service[method]
    service[method] = async function watched(...args) {
      let result
      try {
        result = await original.apply(this, args)
      } catch (error) {
        // Part of it may have been written.
        await clearWritten(args, undefined)
        throw error
      }
      await clearWritten(args, result)
      return result
    }

    async function clearWritten(args, result) {
      let tags
      try {
        tags = tagsOfWrite(schema, name, method, args, result)
      } catch {
        // It is written all the same: everything of the module, and the caller is not told of it.
        tags = schema.typesOf(name).flatMap(whole)
      }
      if (tags?.length) await clear(tags)
    }
  }
}

module.exports = { watch, tagsOfWrite, writingMethods, WATCHED, UNSURE, idsOf, reachesFurther }
