"use strict"
/**
 * Reads between modules. A cart's query is never stored as a whole, but it reads its region, its variants and their
 * prices each time anew. Inside requests of the store, what the reading methods of catalogue and configuration modules
 * return is cached call by call, but not within a transaction.
 *
 * Within a query that is stored as a whole, only calls that are asked for again and again are served and stored: a
 * product's page that is made anew need not read the shop's channels and places anew. What is made of them carries
 * their tags too, so a clear of such a call clears the whole. Servers of a cluster are cleared one after another,
 * so there a whole is made without them: the call could still be served by one server when the other, which keeps the
 * whole, has been cleared already.
 */
const { keyOf } = require("./keys")
const { isPart, isFresh, mayBeNear } = require("./context")
const { describe, rowsOf, tagsOf } = require("./reads")
const { MODULES, TYPES } = require("./policy")

const READS = /^(list|listAndCount|retrieve)(?=[A-Z]|$)/
/** Named differently: computes the prices of price sets. */
const CALCULATE = "calculatePrices"
/** Modules of which only some types are read here. */
const FURTHER = new Set(["fulfillment"])

/** So many keys of calls are remembered, to tell which are asked for again. */
const ASKED_MAX = 4_000

/** Ends of links that are written by the back office only, although their modules have rows that shoppers change. */
const ENDS = new Set([...FURTHER, "payment", "inventory"])

/** Whether a link joins rows of catalogue or configuration. */
function isLinkOfCatalogue(schema, name) {
  const ends = schema.links.get(name)
  return Boolean(ends?.length) && ends.every((end) => MODULES.has(end) || ENDS.has(end))
}

/** The reading methods of a service, by name. */
function* readingMethods(service, name, schema) {
  if (!MODULES.has(name) && !FURTHER.has(name) && !(schema && isLinkOfCatalogue(schema, name))) return
  const seen = new Set()
  for (let at = service; at && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const method of Object.getOwnPropertyNames(at)) {
      if (seen.has(method) || method.endsWith("_")) continue
      seen.add(method)
      if (!READS.test(method) && !(name === "pricing" && method === CALCULATE)) continue
      if (typeof service[method] === "function") yield method
    }
  }
}

/** `["a", "a.b"]` as the tree that queries have. */
function expandsOf(relations) {
  // Without a prototype: a path may be called "constructor".
  const tree = Object.create(null)
  for (const path of relations ?? []) {
    let at = tree
    for (const step of String(path).split(".")) at = (at[step] ??= { expands: Object.create(null) }).expands
  }
  return tree
}

/** The part of arguments that is Medusa's own, in the last place: a transaction, the request, the event group. */
function split(args) {
  const last = args.at(-1)
  const isContext = last && typeof last === "object" && (last.__type === "MedusaContext" || "manager" in last || "transactionManager" in last || "isolationLevel" in last || "eventGroupId" in last)
  return isContext ? { given: args.slice(0, -1), context: last } : { given: args, context: undefined }
}

/** What a call reads; undefined if that cannot be told. */
function describeCall(schema, service, method, given) {
  if (method === CALCULATE) {
    const [filters = {}] = given
    return describe(schema, {
      expand: { entity: "PriceSet", serviceConfig: { serviceName: service, args: {} }, args: [{ name: "filters", value: { id: filters.id } }] },
      keyField: "id",
    })
  }
  const verb = READS.exec(method)[1]
  const suffix = method.slice(verb.length)
  const isLink = schema.links.has(service)
  const type = isLink ? schema.typesOf(service)[0] : schema.named(service, suffix)
  if (!type) return undefined
  const [first, config = {}] = given
  if (config?.filters || config?.withDeleted) return undefined
  // A link's row has no id of its own to ask by.
  if (isLink && verb === "retrieve") return undefined
  const filters = verb === "retrieve" ? { id: first } : (first ?? {})
  const paths = [...(config?.relations ?? []), ...selected(schema, type, config?.select)]
  const expand = {
    entity: type,
    serviceConfig: { serviceName: service, entity: type, args: {} },
    args: [{ name: "filters", value: filters }, { name: "order", value: config?.order }],
    expands: expandsOf(paths),
  }
  return describe(schema, { expand, keyField: "id" })
}

/** Relations named by selected fields: `variants.title`. */
function selected(schema, type, select) {
  const paths = []
  for (const field of select ?? []) {
    const text = String(field)
    const at = text.lastIndexOf(".")
    if (at > 0) paths.push(text.slice(0, at))
    else if (schema.relation(type, text)) paths.push(text)
  }
  return paths
}

/** Whether a value comes back from the cache as it is: rows of plain values and dates. */
function isPlain(value, depth = 0) {
  if (value === null || typeof value !== "object") return typeof value !== "function" && typeof value !== "symbol"
  if (depth > 12) return false
  if (Array.isArray(value)) return value.every((item) => isPlain(item, depth + 1))
  if (value instanceof Date) return true
  const prototype = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return false
  return Object.values(value).every((item) => isPlain(item, depth + 1))
}

/** The name under which a kind of call is judged and explained. */
function shapeOfCall(service, method, [first, config]) {
  const by = first && typeof first === "object" && !Array.isArray(first) ? Object.keys(first).sort().join(",") : "id"
  return `${service}.${method} [${(config?.select ?? []).join(",")}] with (${(config?.relations ?? []).join(",")}) by (${by})`
}

class Calls {
  /**
   * @param {{ store: any, policy: any, schema: any, current: () => any, ttl: (read: any, began: number) => Promise<number | undefined>,
   *   contexts?: import("./pricecontext").PriceContext }} parts
   */
  constructor({ store, policy, schema, current, ttl, contexts }) {
    Object.assign(this, { store, policy, schema, current, ttl, contexts })
    /** Keys of calls that were asked for, the latest at the end. @type {Set<string>} */
    this.asked = new Set()
  }

  /** Wraps the reading methods of a service. */
  watch(service, name) {
    for (const method of readingMethods(service, name, this.schema)) {
      const original = service[method]
      const calls = this
      service[method] = function served(...args) {
        const scope = calls.current()
        if (!scope?.isStore || isFresh(scope)) return original.apply(this, args)
        const whole = isPart(scope) ? scope : undefined
        if (whole && (method === CALCULATE || calls.store.isSpread)) return original.apply(this, args)
        return calls.#serve(name, method, args, () => original.apply(this, args), whole)
      }
    }
  }

  /** Whether the call was asked for before, as far as is remembered. */
  #isAskedAgain(key) {
    const isAgain = this.asked.delete(key)
    if (this.asked.size >= ASKED_MAX) this.asked.delete(this.asked.keys().next().value)
    this.asked.add(key)
    return isAgain
  }

  /** `whole`: the scope of the query that is stored as a whole, if the call is part of one. */
  async #serve(service, method, args, run, whole) {
    const { given, context } = split(args)
    if (context && (context.transactionManager || context.manager)) return await run()
    const shape = this.policy.named(shapeOfCall(service, method, given))
    shape.runs += 1
    shape.services = [service]
    if (shape.isUnfit) return await run()
    const read = this.#describe(service, method, given)
    shape.objection = read ? this.#objection(read) : "what it reads is not known"
    if (shape.objection || !this.policy.isReadAgain(shape)) return await run()
    const scope = this.current()
    const { asked, mark } = await this.#asked(method, given, { near: mayBeNear(scope) })
    const key = keyOf({ call: service, method, given: asked, mark })
    if (key === undefined) return await run()
    if (!this.#isAskedAgain(key) && whole) return await run()
    const found = await this.store.get(key, { near: mayBeNear(scope) })
    if (found) {
      shape.hits += 1
      if (whole) {
        read.addRows(this.schema, rowsOf(found.value))
        whole.note(read)
      }
      return found.value
    }
    const began = Date.now()
    let value
    // What it reads by other calls becomes a part of what is stored.
    scope.derives += 1
    try {
      value = await run()
    } catch (error) {
      this.store.release(key)
      throw error
    } finally {
      scope.derives -= 1
    }
    if (value === undefined || value === null || !isPlain(value)) {
      if (value) {
        shape.isUnfit = true
        shape.objection = "what it returns is more than rows"
      }
      this.store.release(key)
      return value
    }
    // Before the caller gets the value, because the caller may change it.
    if (method !== CALCULATE) read.addRows(this.schema, rowsOf(value))
    const sealed = this.store.seal({ value }, { isExact: true })
    this.#keep(shape, key, sealed, read, began, mark).catch(() => {})
    return value
  }

  /** Odd arguments are the module's to refuse. */
  #describe(service, method, given) {
    try {
      return describeCall(this.schema, service, method, given)
    } catch {
      return undefined
    }
  }

  /** The arguments of which the key is made. */
  async #asked(method, given, how) {
    if (method !== CALCULATE) return { asked: given }
    const [filters, of, ...rest] = given
    const less = await this.contexts?.context(of?.context, how)
    if (!less) return { asked: given }
    return { asked: [filters, { ...of, context: less.context }, ...rest], mark: less.mark }
  }

  #objection(read) {
    for (const type of read.types) {
      const owner = this.schema.ownerOf.get(type) ?? read.service
      if (isLinkOfCatalogue(this.schema, owner)) continue
      if (!MODULES.has(owner) && !TYPES.has(type)) return `it reads ${type} of ${owner}, which shoppers change`
    }
    return read.unclear
  }

  async #keep(shape, key, sealed, read, began, mark) {
    const seconds = mark === undefined || (await this.contexts.holds(mark)) ? await this.ttl(read, began) : undefined
    const tags = tagsOf(this.schema, [read], undefined)
    shape.tags = tags
    if (seconds === undefined) {
      shape.refused += 1
      return this.store.release(key)
    }
    if (await this.store.set({ key, sealed, ttl: seconds, tags })) shape.fills += 1
    else shape.refused += 1
  }
}

module.exports = { Calls, describeCall, isPlain, split, readingMethods }
