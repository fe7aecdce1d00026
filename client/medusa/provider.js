"use strict"
/** `medusa-mcache/provider`: a provider for @medusajs/caching. What Medusa's `ModuleProvider` makes is this object. */
const { McacheCachingProvider } = require("./src/provider/service")
const { loadStore } = require("./src/provider/loader")

const provider = { module: "caching", services: [McacheCachingProvider], loaders: [loadStore] }

module.exports = { __esModule: true, default: provider, McacheCachingProvider }
