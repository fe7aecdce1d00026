"use strict"
/** `medusa-mcache/provider`: a provider for @medusajs/caching. What Medusa's `ModuleProvider` makes is this object. */
const { McacheCachingProvider } = require("./src/provider/service")
const { loadStore } = require("./src/provider/loader")

// In this form `import { McacheCachingProvider } from` finds the name, too.
exports.__esModule = true
exports.McacheCachingProvider = McacheCachingProvider
exports.default = { module: "caching", services: [McacheCachingProvider], loaders: [loadStore] }
