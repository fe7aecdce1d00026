"use strict"
/**
 * The caching module, in place of @medusajs/caching: the same interface and events, and beyond it what the extensions
 * do. With all extensions off it caches what Medusa's module caches.
 */
const { keyOf, keyOrNew } = require("./keys")
const { Schema } = require("./schema")
const { any, whole, tagsOfEvent, tagsOfChange, tagsOfRows } = require("./tags")
const { tagsOf, PRICING } = require("./reads")
const { listed } = require("../names")
const { PriceContext } = require("./pricecontext")
const { Policy } = require("./policy")
const { Prices } = require("./prices")
const { Calls } = require("./calls")
const { UNSURE } = require("./writes")
const { current, mayBeNear, derivesFromNowOn, outside } = require("./context")
const { serveQueriesBy, stopServingBy, tapWrites } = require("./taps")

const EVENT_BUS = "event_bus"
/** What Medusa's modules write while they start, before the package can notice: defaults, and the providers. */
const WRITTEN_AT_START = [
  "Currency", "Country", "Region", "Store", "SalesChannel", "ApiKey", "Locale", "PaymentProvider", "FulfillmentProvider", "TaxProvider", "TaxRegion",
]
class McacheCachingModule {
  constructor(container, declaration) {
    this.container = container
    this.store = container.mcacheStore
    this.extensions = container.mcacheExtensions
    this.logger = container.logger ?? console
    const options = declaration && "options" in declaration ? declaration.options : declaration
    this.ttl = this.store.options.ttl ?? options?.ttl
    /** Known once all modules are loaded and their changes are heard of; until then nothing is cached. @type {Schema | undefined} */
    this.schema = undefined
    this.policy = undefined
    this.__hooks = {
      onApplicationStart: () => this.#started(),
      onApplicationShutdown: async () => {
        stopServingBy(this.served)
        await this.store.end()
      },
    }
  }

  async #started() {
    try {
      await this.#connect()
    } catch (error) {
      // Medusa does not show what is thrown here.
      this.logger.error(`medusa-mcache: the start failed, nothing is cached: ${error.stack}`)
      throw error
    }
  }

  async #connect() {
    const { configs, schema: types, modules } = this.container.mcacheMedusa()
    const schema = new Schema(types, configs)
    const { queries, reuse, prices, writes, tags, modules: calls } = this.extensions
    this.policy = new Policy({ schema, queries, reuse })
    if (prices) this.prices = new Prices({ store: this.store, service: () => modules.get("pricing"), outside })
    if (prices && modules.get("pricing")) {
      const types = new Set([...PRICING, ...schema.typesOf("pricing")])
      this.contexts = new PriceContext({ store: this.store, service: () => modules.get("pricing"), outside, tags: [...types].map(any) })
    }
    const onEvent = (event) => {
      // Medusa's bus does not wait for it, and neither does what it tells of.
      this.#changed(tagsOfEvent(event, schema))
    }
    const bus = this.container[EVENT_BUS]
    bus?.subscribe("*", async (event) => onEvent(event))
    bus?.addInterceptor?.(async (event) => onEvent(event))
    if (writes) tapWrites(modules, schema, (changed) => this.#changed(changed))
    if (calls) {
      const ttl = async (read, began) => (this.prices && read.isPriced ? await this.prices.ttl(this.ttl, began) : this.ttl)
      const served = new Calls({ store: this.store, policy: this.policy, schema, current, ttl, contexts: this.contexts })
      for (const [name, service] of modules) if (service) served.watch(service, name)
    }
    // Not waited for: a server that is away is told later, and read only then.
    this.store.clearTags(WRITTEN_AT_START.flatMap(whole), true)
    this.schema = schema
    if (queries || tags || calls) {
      this.served = {
        schema,
        graph: (scope, options, run) => this.#graph(scope, options, run),
        remote: (scope, run) => this.#remote(scope, run),
      }
      serveQueriesBy(this.served)
    }
  }

  /** Something changed: clears, and waits for that as long as the server is there. */
  async #changed(tags) {
    if (tags.length === 0) return
    const acknowledged = this.store.clearTags(tags, true)
    if (!this.store.stats().usable) return
    if (this.store.near) current()?.hold(acknowledged)
    await acknowledged
  }

  /** query.graph and query.index: Medusa's decorator does the caching; here it is decided whether. */
  async #graph(scope, options, run) {
    const shape = this.policy.shape(scope.query.input)
    shape.runs += 1
    scope.shape = shape
    const given = options?.cache
    if (given?.enable === false) {
      scope.isFresh = true
      return await run(options)
    }
    if (scope.isWithinFill()) return await run({ ...options, cache: { ...given, enable: false } })
    const isMedusas = Boolean(
      given && (given.enable === true || given.key || given.ttl || given.tags || given.computeAutomaticTags || given.autoInvalidate || given.providers),
    )
    shape.isMedusas = isMedusas
    // What the index engine or the search finds is not read through a module, and rows that are given are not part of
    // the key; so these are cached where Medusa asks for it only.
    if (isMedusas || scope.query.method === "index" || options?.initialData) return await this.#filling(scope, () => run(options))
    if (this.policy.wants(shape, scope)) return await this.#filling(scope, () => run({ ...options, cache: { enable: true } }))
    return await this.#learning(scope, () => run(options))
  }

  /** Medusa does not say that a query failed which it was to store: others would wait for it until its lease ends. */
  async #filling(scope, run) {
    try {
      return await run()
    } catch (error) {
      if (scope.isFilling) {
        scope.isFilling = false
        this.store.release(scope.key)
      }
      throw error
    }
  }

  /** Runs a query that is not cached; the first of a shape shows what it reads, all of it. */
  async #learning(scope, run) {
    const { shape } = scope
    const isFirst = scope.isStore && this.extensions.queries && shape.objection === null
    scope.isFresh = isFirst
    const result = await run()
    if (isFirst) this.policy.learn(shape, scope.reads)
    return result
  }

  /** query(): not cached by Medusa at all. */
  async #remote(scope, run) {
    const shape = this.policy.shape(scope.query.input)
    shape.runs += 1
    scope.shape = shape
    if (scope.isWithinFill()) return await run()
    if (!this.policy.wants(shape, scope)) return await this.#learning(scope, run)
    const { input, options } = scope.query
    const asked = input?.__value ?? input
    const less = await this.contexts?.query(asked, { near: mayBeNear(scope) })
    const key = keyOf({ remote: less?.input ?? asked, options, mark: less?.mark })
    if (key === undefined) return await run()
    if (less) scope.mark = less.mark
    const found = await this.get({ key })
    if (found) return found.data
    try {
      const data = await run()
      // Not waited for, as Medusa does not.
      this.set({ key, data: { data } }).catch(() => {})
      return data
    } catch (error) {
      this.store.release(key)
      throw error
    }
  }

  async get({ key, tags }) {
    if (!key && !tags) throw invalid("Either key or tags must be provided")
    if (!this.schema) return null
    if (!key) return await this.store.getByTags(listed(tags))
    const scope = current()
    const value = await this.store.get(key, { near: mayBeNear(scope) })
    if (value === null) {
      if (scope?.query && !scope.isFilling) {
        scope.isFilling = true
        scope.key = key
        scope.began = Date.now()
        scope.reads.length = 0
      } else if (scope) derivesFromNowOn(scope)
      return null
    }
    if (scope?.shape) scope.shape.hits += 1
    return value
  }

  async set({ key, data, ttl, tags, computeAutomaticTags, providers, options }) {
    if (!key) throw invalid("Key must be provided")
    if (!this.schema) return
    const scope = current()
    const query = scope?.query && scope.key === key ? scope : undefined
    const stored = await this.#store(query, { key, data, ttl: ttlOf(providers) ?? ttl, tags: listed(tags), computeAutomaticTags, options })
    if (query?.shape) {
      if (stored) query.shape.fills += 1
      else query.shape.refused += 1
    }
  }

  /** Reads the value before it first waits: Medusa's routes go on writing into what they got. */
  async #store(scope, { key, data, ttl = this.ttl, tags, computeAutomaticTags, options }) {
    const reads = scope?.reads ?? []
    const { mark } = scope ?? {}
    if (scope && !this.#isWorthStoring(scope)) {
      this.store.release(key)
      return false
    }
    const sealed = data === null ? Promise.resolve(null) : this.store.seal(data)
    const all = this.#tagsFor(scope, data, tags, computeAutomaticTags)
    if (scope?.shape) scope.shape.tags = all
    if (mark !== undefined && !(await this.contexts.holds(mark))) {
      this.store.release(key)
      return false
    }
    let seconds = ttl
    if (this.prices && reads.some((read) => read.isPriced)) {
      seconds = await this.prices.ttl(ttl, scope.began)
      if (seconds === undefined) {
        this.store.release(key)
        return false
      }
    }
    return await this.store.set({ key, sealed, ttl: seconds, tags: all, autoInvalidate: options?.autoInvalidate })
  }

  #isWorthStoring(scope) {
    scope.isFilling = false
    const { shape } = scope
    this.policy.learn(shape, scope.reads)
    // Nothing was read through a module (the index engine found nothing): nothing would ever clear it.
    if (scope.reads.length === 0 && this.extensions.tags) return false
    return (shape.isMedusas || !shape.objection) && this.policy.isReadAgain(shape)
  }

  #tagsFor(scope, data, tags, computeAutomaticTags) {
    const computed = !tags || computeAutomaticTags ? this.#computed(scope, data) : []
    const all = [...new Set([...(tags ?? []), ...computed])]
    if (!this.extensions.precise || !this.extensions.writes || !computeAutomaticTags) return all
    // Medusa names it for the availability of variants; what clears that is known more exactly (writes.js).
    return all.map((tag) => (tag === "ReservationItem:list:*" ? UNSURE : tag))
  }

  #computed(scope, data) {
    if (!this.schema) return []
    const { tags, precise } = this.extensions
    if (scope && tags) {
      if (scope.query.method !== "index") return tagsOf(this.schema, scope.reads, data, { isPrecise: precise })
      // Which rows the index engine filtered by is not known: any of the module's, and of all types that were read.
      const types = scope.reads.flatMap((read) => (read.type ? this.schema.around(read.type) : []))
      return [...new Set([...tagsOf(this.schema, scope.reads, data, { isPrecise: false }), ...types.map(any)])]
    }
    const found = new Set()
    tagsOfRows(data?.data ?? data?.rows ?? data, undefined, this.schema, found)
    for (const tag of [...found]) found.add(`${tag.slice(0, tag.indexOf(":"))}:list:*`)
    return [...found]
  }

  async clear({ key, tags: given, options }) {
    const tags = listed(given)
    if (!key && !tags) throw invalid("Either key or tags must be provided")
    if (key) await this.store.clearKey(key)
    else if (tags.includes("*") || options?.autoInvalidate !== false) {
      await this.store.clearTags(tags, options?.autoInvalidate === true)
    }
  }

  /** Of a query's context only what its prices depend on is part of the key. */
  async computeKey(input) {
    const scope = current()
    const less = scope?.query && scope.isStore && !scope.isFilling ? await this.contexts?.query(input, { near: mayBeNear(scope) }) : undefined
    if (!less) return keyOrNew(input)
    scope.mark = less.mark
    return keyOrNew({ ...less.input, mark: less.mark })
  }

  /** The tags of a value; with `entities` and `operation` those that a change of them clears. */
  async computeTags(input, options) {
    if (options?.entities) {
      const tags = new Set()
      for (const { type, id } of options.entities) {
        for (const tag of tagsOfChange(type, id, options.operation ?? "updated", this.schema)) tags.add(tag)
      }
      return [...tags]
    }
    return this.#computed(undefined, input)
  }

  /**
   * What became of each shape of query: whether it is cached, why not, how often it was read and stored.
   * @param {string} [part] only shapes whose text contains it
   */
  explain(part = "") {
    const found = [...(this.policy?.shapes.values() ?? [])].filter((shape) => shape.name.includes(part))
    return found
      .sort((one, other) => other.runs - one.runs)
      .map((shape) => ({
        query: shape.name,
        cached: shape.isMedusas ? "by Medusa's choice" : shape.objection === undefined,
        why: shape.objection === null ? "it has not been seen inside a request of the store" : (shape.objection ?? this.#why(shape)),
        runs: shape.runs,
        hits: shape.hits,
        fills: shape.fills,
        refused: shape.refused,
        services: shape.services,
        tags: shape.tags,
      }))
  }

  #why(shape) {
    return this.policy.isReadAgain(shape) ? "every read is of catalogue or configuration" : "its results are hardly read again"
  }

  stats() {
    return this.store.stats()
  }

  /** The tags and keys whose clearing Redis has not acknowledged; they are sent again until it does. */
  unacknowledged() {
    return this.store.clears.unacknowledged()
  }
}

/** Medusa lets a provider in `set` bring its own ttl. */
function ttlOf(providers) {
  const own = (Array.isArray(providers) ? providers : [providers]).find((provider) => typeof provider === "object")
  return own?.ttl
}

function invalid(text) {
  const error = new Error(`[medusa-mcache] ${text}`)
  error.name = "MedusaError"
  error.type = "invalid_argument"
  error.__isMedusaError = true
  return error
}

module.exports = { McacheCachingModule }
