"use strict"
/**
 * Prices are computed in a context, and in a cart that is the whole cart: no two are equal, so no result would ever be
 * found again. But of a context only these matter: currency, region, quantity, and the values of the attributes that
 * some rule of a price or of a price list names. A key is made of those. Which attributes there are is read from the
 * database and kept in the cache, cleared like any other entry when prices or rules change.
 *
 * A key made with the attributes of before must not be used for what is computed after a rule came that names another
 * one. So each reading of the attributes has a mark of its own, which is part of the key, and what was computed is
 * stored only if the mark is still the same afterwards.
 */
const { randomBytes } = require("node:crypto")
const { isPlainObject } = require("./keys")

const KEY = "price-attributes"
/** What the computation reads besides rules. */
const ALWAYS = ["currency_code", "region_id", "quantity"]
const ATTRIBUTES_MAX = 200
const SQL = "SELECT DISTINCT attribute FROM price_rule UNION SELECT DISTINCT attribute FROM price_list_rule"

/** The values at a path, through lists; undefined if there are none. */
function at(value, path) {
  if (value === undefined || value === null) return undefined
  if (path.length === 0) return value
  if (Array.isArray(value)) {
    const found = value.map((item) => at(item, path)).filter((item) => item !== undefined)
    return found.length > 0 ? found : undefined
  }
  if (typeof value !== "object") return undefined
  return at(value[path[0]], path.slice(1))
}

/** What of a context prices depend on. */
function project(context, attributes) {
  // Without a prototype: what is called "__proto__" is a name like others, and part of the key.
  const kept = Object.create(null)
  for (const name of [...ALWAYS, ...attributes]) {
    const value = context[name] ?? at(context, name.split("."))
    if (value !== undefined && value !== null) kept[name] = value
  }
  return kept
}

/** Whether nothing would be left out: then nothing has to be known. */
const isSmall = (context) => Object.keys(context).every((name) => ALWAYS.includes(name) || name === "__type")

/** Not what has a JSON of its own, as dates have, and nothing of which a copy would be less. */
const isObject = (value) => isPlainObject(value) && typeof value.toJSON !== "function"

/** Whether a query, or what it is asked with, has a context for prices that is worth reducing. */
function hasLarge(value, depth = 0) {
  if (!isObject(value) || depth > 6) return false
  return Object.entries(value).some(([name, of]) => {
    if (!isObject(of)) return false
    if (!isPrice(name)) return hasLarge(of, depth + 1)
    const context = contextOf(of)
    return isObject(context) && !isSmall(context)
  })
}

const isPrice = (name) => name === "calculated_price" || name.endsWith(".calculated_price")
const contextOf = (of) => of.context ?? of.__args?.context ?? (of.__type === "QueryContext" ? of : undefined)

/** The same with each context for prices reduced. */
function reduced(value, attributes, depth = 0) {
  if (!isObject(value) || depth > 6) return value
  const made = Object.create(null)
  for (const [name, of] of Object.entries(value)) {
    if (!isObject(of) || !isPrice(name)) made[name] = reduced(of, attributes, depth + 1)
    else if (isObject(of.context)) made[name] = { ...of, context: project(of.context, attributes) }
    else if (isObject(of.__args?.context)) made[name] = { ...of, __args: { ...of.__args, context: project(of.__args.context, attributes) } }
    else if (of.__type === "QueryContext") made[name] = Object.assign(project(of, attributes), { __type: of.__type })
    else made[name] = of
  }
  return made
}

/** Asks the pricing module's database. */
async function readAttributes(service) {
  const { rows } = await service.baseRepository_.getActiveManager({}).getKnex().raw(SQL)
  return rows.map(({ attribute }) => attribute)
}

class PriceContext {
  /** @param {{ store: import("../store").Store, service: () => any, outside: Function, tags: string[], read?: (service: any) => Promise<string[]> }} parts */
  constructor({ store, service, outside, tags, read = readAttributes }) {
    Object.assign(this, { store, service, outside, tags, read })
  }

  /**
   * The attributes that rules name, and the mark of this reading; undefined if they are not known. `how` as for
   * Store.get: a mark that lags behind is noticed by `holds`, before anything is stored under it.
   */
  async known(how) {
    const found = await this.store.get(KEY, how)
    if (found) return found
    try {
      const names = await this.outside(() => this.read(this.service()))
      if (names.length > ATTRIBUTES_MAX) {
        this.store.release(KEY)
        return undefined
      }
      const known = { names: names.sort(), mark: randomBytes(8).toString("hex") }
      return (await this.store.set({ key: KEY, data: known, tags: this.tags })) ? known : undefined
    } catch {
      this.store.release(KEY)
      return undefined
    }
  }

  /** A query in the form of which its key is made, and the mark that must still hold when its result is stored. */
  async query(input, how) {
    if (!hasLarge(input)) return undefined
    const known = await this.known(how)
    return known && { input: reduced(input, known.names), mark: known.mark }
  }

  /** The same for a context of prices itself. */
  async context(context, how) {
    if (!isObject(context) || isSmall(context)) return undefined
    const known = await this.known(how)
    return known && { context: project(context, known.names), mark: known.mark }
  }

  /** Whether a mark still holds. Never asked of the near cache. */
  async holds(mark) {
    const found = await this.store.get(KEY)
    // Only of a miss this is the load: another reader's must not be taken for it.
    if (found === null) this.store.release(KEY)
    return found?.mark === mark
  }
}

module.exports = { PriceContext, project, reduced, hasLarge }
