"use strict"
/** A small shop with the module in place of Medusa's, on a real server. */
const { TestRedis } = require("./redis")
const { listener, PATIENT } = require("./provider")
const { schemaOf, TYPES, CONFIGS, Bus, Rows, queryClasses } = require("./shop")
const { default: module_ } = require("../../index")
const { tapQueries } = require("../../src/module/taps")
const { inRequest } = require("../../src/module/context")

async function startShop(t, options = {}, { priceLists = [], rows: shared } = {}) {
  const redis = options.redisUrl || options.cluster ? undefined : await TestRedis.start(t)
  const bus = new Bus()
  const shop = { redis, bus, others: {}, rows: shared ?? new Rows(bus), logger: listener() }
  const cradle = { event_bus: bus, logger: shop.logger }
  const container = {
    register: (entries) => {
      for (const [name, resolver] of Object.entries(entries)) cradle[name] = resolver.resolve()
    },
  }
  const given = { redisUrl: redis?.url, ...PATIENT, ...options }
  for (const load of module_.loaders) await load({ container, logger: shop.logger, options: given })
  cradle.mcacheMedusa = () => ({
    configs: CONFIGS,
    schema: schemaOf(TYPES),
    modules: new Map([
      ["product", shop.rows],
      ["pricing", { listPriceLists: async () => priceLists }],
    ]),
  })
  shop.caching = new module_.service(cradle, { options: given })
  const classes = (shop.classes = queryClasses(shop))
  tapQueries(classes)
  await shop.caching.__hooks.onApplicationStart()
  t.after(() => shop.caching.__hooks.onApplicationShutdown())
  const query = new classes.Query()
  /** A query inside a request of the store, when its result has been stored. */
  shop.ask = async (input, { isStore = true, cache } = {}) => {
    shop.stored = undefined
    const result = await inRequest(isStore, () => query.graph(input, cache && { cache }))
    await shop.stored
    return result.data
  }
  shop.remote = (input) => inRequest(true, () => query.query(input))
  /** How often the database was read for it. */
  shop.readsOf = async (run) => {
    const before = shop.rows.reads
    await run()
    return shop.rows.reads - before
  }
  return shop
}

module.exports = { startShop }
