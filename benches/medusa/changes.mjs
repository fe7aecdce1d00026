// Every kind of change that the back office, or an order, makes to what the store shows. Each is a name and what is
// done; `admin` is the server on which it is done, `w` the world (see world.mjs), `n` a number of this run, for unique
// names.
const price = (amount) => [{ amount, currency_code: "eur" }]

export const CHANGES = [
  // Products.
  ["product: title", ({ admin, w, n }) => admin.post(`/admin/products/${w.product}`, { title: `Title ${n}` })],
  ["product: subtitle", ({ admin, w, n }) => admin.post(`/admin/products/${w.product}`, { subtitle: `Subtitle ${n}` })],
  ["product: metadata", ({ admin, w, n }) => admin.post(`/admin/products/${w.product}`, { metadata: { run: n } })],
  ["product: images", ({ admin, w, n }) => admin.post(`/admin/products/${w.product}`, { images: [{ url: `https://img.example.com/${n}.jpg` }] })],
  ["product: handle", async ({ admin, w, n }) => {
    await admin.post(`/admin/products/${w.product}`, { handle: `handle-${n}` })
  }],
  ["product: handle that was asked for", ({ admin, w }) => admin.post(`/admin/products/${w.product}`, { handle: w.handle })],
  ["product: into the collection", ({ admin, w }) => admin.post(`/admin/products/${w.product}`, { collection_id: w.collection })],
  ["product: out of any collection", ({ admin, w }) => admin.post(`/admin/products/${w.product}`, { collection_id: null })],
  ["product: into an empty collection", ({ admin, w }) => admin.post(`/admin/products/${w.product2}`, { collection_id: w.emptyCollection })],
  ["product: type", ({ admin, w }) => admin.post(`/admin/products/${w.product}`, { type_id: w.type })],
  ["product: tag put on", ({ admin, w }) => admin.post(`/admin/products/${w.product}`, { tags: [{ id: w.tag }] })],
  ["product: tags taken off", ({ admin, w }) => admin.post(`/admin/products/${w.product}`, { tags: [] })],
  ["product: categories set", ({ admin, w }) => admin.post(`/admin/products/${w.product}`, { categories: [{ id: w.category }] })],
  ["product: categories taken off", ({ admin, w }) => admin.post(`/admin/products/${w.product}`, { categories: [] })],
  ["product: created", ({ admin, w, n }) => admin.post("/admin/products", newProduct(w, n, "published"))],
  ["product: created as a draft", async ({ admin, w, n }) => {
    w.draft = (await admin.post("/admin/products", newProduct(w, `draft-${n}`, "draft"))).product.id
  }],
  ["product: draft published", ({ admin, w }) => admin.post(`/admin/products/${w.draft}`, { status: "published" })],
  ["product: published one withdrawn", ({ admin, w }) => admin.post(`/admin/products/${w.draft}`, { status: "draft" })],
  ["product: deleted", ({ admin, w }) => admin.delete(`/admin/products/${w.draft}`)],
  ["products: in a batch", ({ admin, w, n }) => admin.post("/admin/products/batch", {
    create: [newProduct(w, `batch-${n}`, "published")],
    update: [{ id: w.product2, subtitle: `Batch ${n}` }],
  })],
  // Variants and options.
  ["variant: created", async ({ admin, w, n }) => {
    const { product } = await admin.get(`/admin/products/${w.product}?fields=*options,*options.values,*variants,*variants.options`)
    // A combination that no variant has yet needs a value more.
    const [first, ...rest] = product.options
    await admin.post(`/admin/products/${w.product}/options/batch`, { update: [{ product_option_id: first.id, add: [{ value: `value ${n}` }] }] })
    const options = Object.fromEntries([[first.title, `value ${n}`], ...rest.map((option) => [option.title, option.values[0].value])])
    const { product: now } = await admin.post(`/admin/products/${w.product}/variants`, {
      title: `Variant ${n}`, sku: `SKU-${n}`, options, prices: price(10), manage_inventory: false,
    })
    w.newVariant = now.variants.find((variant) => variant.sku === `SKU-${n}`).id
    w.option = first.id
  }],
  ["variant: title", ({ admin, w, n }) => admin.post(`/admin/products/${w.product}/variants/${w.variant}`, { title: `Variant ${n}` })],
  ["variant: price", ({ admin, w, n }) => admin.post(`/admin/products/${w.product}/variants/${w.variant}`, { prices: price(100 + n % 100) })],
  ["variant: with stock keeping", ({ admin, w }) => admin.post(`/admin/products/${w.product}/variants/${w.newVariant}`, { manage_inventory: true })],
  ["variant: backorders", ({ admin, w }) => admin.post(`/admin/products/${w.product}/variants/${w.variant}`, { allow_backorder: true })],
  ["variants: prices in a batch", ({ admin, w, n }) => admin.post(`/admin/products/${w.product}/variants/batch`, { update: [{ id: w.variant, prices: price(200 + n % 100) }] })],
  ["option: title", ({ admin, w, n }) => admin.post(`/admin/product-options/${w.option}`, { title: `Renamed ${n}` })],
  ["variant: deleted", ({ admin, w }) => admin.delete(`/admin/products/${w.product}/variants/${w.newVariant}`)],
  // Price lists.
  ["price list: created as a draft", async ({ admin, w, n }) => {
    const made = await admin.post("/admin/price-lists", {
      title: `List ${n}`, description: "of the check", type: "sale", status: "draft",
      prices: [{ amount: 3, currency_code: "eur", variant_id: w.variant }],
    })
    w.priceList = made.price_list.id
  }],
  ["price list: activated", ({ admin, w }) => admin.post(`/admin/price-lists/${w.priceList}`, { status: "active" })],
  ["price list: a price more", ({ admin, w }) => admin.post(`/admin/price-lists/${w.priceList}/prices/batch`, { create: [{ amount: 4, currency_code: "eur", variant_id: w.variant2 }] })],
  ["price list: a price changed", async ({ admin, w, n }) => {
    const { price_list: list } = await admin.get(`/admin/price-lists/${w.priceList}?fields=*prices,*prices.price_set,*prices.price_set.variant`)
    await admin.post(`/admin/price-lists/${w.priceList}/prices/batch`, { update: [{ id: list.prices[0].id, amount: 2 + (n % 7), currency_code: "eur", variant_id: w.variant }] })
  }],
  ["price list: ends in the past", ({ admin, w }) => admin.post(`/admin/price-lists/${w.priceList}`, { ends_at: new Date(Date.now() - 60_000).toISOString() })],
  ["price list: ends never", ({ admin, w }) => admin.post(`/admin/price-lists/${w.priceList}`, { ends_at: null })],
  ["price list: begins tomorrow", ({ admin, w }) => admin.post(`/admin/price-lists/${w.priceList}`, { starts_at: new Date(Date.now() + 86_400_000).toISOString() })],
  ["price list: begins at once", ({ admin, w }) => admin.post(`/admin/price-lists/${w.priceList}`, { starts_at: null })],
  ["price list: for a group of customers", ({ admin, w }) => admin.post(`/admin/price-lists/${w.priceList}`, { rules: { "customer.groups.id": [w.group] } })],
  ["price list: for all", ({ admin, w }) => admin.post(`/admin/price-lists/${w.priceList}`, { rules: {} })],
  ["price list: ends by the clock", { moment: async ({ admin, w }) => {
    const at = Date.now() + 3_000
    await admin.post(`/admin/price-lists/${w.priceList}`, { ends_at: new Date(at).toISOString() })
    return at
  } }],
  ["price list: begins by the clock", { moment: async ({ admin, w }) => {
    const at = Date.now() + 3_000
    await admin.post(`/admin/price-lists/${w.priceList}`, { ends_at: null, starts_at: new Date(at).toISOString() })
    return at
  } }],
  ["price list: a product less", ({ admin, w }) => admin.post(`/admin/price-lists/${w.priceList}/products`, { remove: [w.product] })],
  ["price list: deleted", ({ admin, w }) => admin.delete(`/admin/price-lists/${w.priceList}`)],
  ["price preference: with tax", async ({ admin, w }) => {
    const { price_preferences: all } = await admin.get("/admin/price-preferences?limit=50")
    const known = all.find((preference) => preference.attribute === "region_id" && preference.value === w.region)
    if (known) await admin.post(`/admin/price-preferences/${known.id}`, { is_tax_inclusive: !known.is_tax_inclusive })
    else await admin.post("/admin/price-preferences", { attribute: "region_id", value: w.region, is_tax_inclusive: true })
  }],
  // Stock.
  ["stock: level", ({ admin, w, n }) => admin.post(`/admin/inventory-items/${w.item}/location-levels/${w.location}`, { stocked_quantity: 1000 + (n % 500) })],
  ["stock: levels in a batch", ({ admin, w, n }) => admin.post(`/admin/inventory-items/${w.item}/location-levels/batch`, { update: [{ location_id: w.location, stocked_quantity: 2000 + (n % 500) }] })],
  ["stock: at another location", async ({ admin, w }) => {
    // A run that was cut short may have left it there.
    await admin.request("DELETE", `/admin/inventory-items/${w.item}/location-levels/${w.location2}`)
    await admin.request("POST", `/admin/inventory-items/${w.item}/location-levels`, { location_id: w.location2, stocked_quantity: 7 })
  }],
  ["stock: no longer there", async ({ admin, w }) => {
    await admin.post(`/admin/inventory-items/${w.item}/location-levels/${w.location2}`, { stocked_quantity: 0 })
    await admin.delete(`/admin/inventory-items/${w.item}/location-levels/${w.location2}`)
  }],
  ["stock: reserved", async ({ admin, w }) => {
    w.reservation = (await admin.post("/admin/reservations", { inventory_item_id: w.item, location_id: w.location, quantity: 5 })).reservation.id
  }],
  ["stock: more reserved", ({ admin, w }) => admin.post(`/admin/reservations/${w.reservation}`, { quantity: 9 })],
  ["stock: reservation deleted", ({ admin, w }) => admin.delete(`/admin/reservations/${w.reservation}`)],
  ["stock: an order", ({ w, order }) => order(w.variant)],
  ["stock: location of the channel taken away", ({ admin, w }) => admin.post(`/admin/stock-locations/${w.location}/sales-channels`, { remove: [w.channel] })],
  ["stock: location of the channel given back", ({ admin, w }) => admin.post(`/admin/stock-locations/${w.location}/sales-channels`, { add: [w.channel] })],
  // Collections, categories, tags, types.
  ["collection: title", ({ admin, w, n }) => admin.post(`/admin/collections/${w.collection}`, { title: `Collection ${n}` })],
  ["collection: created", async ({ admin, w, n }) => {
    w.newCollection = (await admin.post("/admin/collections", { title: `New collection ${n}`, handle: `new-collection-${n}` })).collection.id
  }],
  ["collection: products in", ({ admin, w }) => admin.post(`/admin/collections/${w.emptyCollection}/products`, { add: [w.product] })],
  ["collection: products out", ({ admin, w }) => admin.post(`/admin/collections/${w.emptyCollection}/products`, { remove: [w.product, w.product2] })],
  ["collection: deleted", ({ admin, w }) => admin.delete(`/admin/collections/${w.newCollection}`)],
  ["category: name", ({ admin, w, n }) => admin.post(`/admin/product-categories/${w.category}`, { name: `Category ${n}` })],
  ["category: products in", ({ admin, w }) => admin.post(`/admin/product-categories/${w.emptyCategory}/products`, { add: [w.product] })],
  ["category: products out", ({ admin, w }) => admin.post(`/admin/product-categories/${w.emptyCategory}/products`, { remove: [w.product] })],
  ["category: hidden", ({ admin, w }) => admin.post(`/admin/product-categories/${w.category}`, { is_active: false })],
  ["category: shown", ({ admin, w }) => admin.post(`/admin/product-categories/${w.category}`, { is_active: true })],
  ["category: internal", ({ admin, w }) => admin.post(`/admin/product-categories/${w.category}`, { is_internal: true })],
  ["category: public", ({ admin, w }) => admin.post(`/admin/product-categories/${w.category}`, { is_internal: false })],
  ["category: created", async ({ admin, w, n }) => {
    const made = await admin.post("/admin/product-categories", { name: `New category ${n}`, is_active: true, is_internal: false, parent_category_id: w.category })
    w.newCategory = made.product_category.id
  }],
  ["category: moved", ({ admin, w }) => admin.post(`/admin/product-categories/${w.newCategory}`, { parent_category_id: null, rank: 0 })],
  ["category: deleted", ({ admin, w }) => admin.delete(`/admin/product-categories/${w.newCategory}`)],
  ["tag: renamed", ({ admin, w, n }) => admin.post(`/admin/product-tags/${w.tag}`, { value: `tag-${n}` })],
  ["tag: created", async ({ admin, w, n }) => {
    w.newTag = (await admin.post("/admin/product-tags", { value: `new-tag-${n}` })).product_tag.id
  }],
  ["tag: deleted", ({ admin, w }) => admin.delete(`/admin/product-tags/${w.newTag}`)],
  ["type: renamed", ({ admin, w, n }) => admin.post(`/admin/product-types/${w.type}`, { value: `type-${n}` })],
  ["type: created", async ({ admin, w, n }) => {
    w.newType = (await admin.post("/admin/product-types", { value: `new-type-${n}` })).product_type.id
  }],
  ["type: deleted", ({ admin, w }) => admin.delete(`/admin/product-types/${w.newType}`)],
  // Channels, keys, store.
  ["channel: product taken out", ({ admin, w }) => admin.post(`/admin/sales-channels/${w.channel}/products`, { remove: [w.product2] })],
  ["channel: product put in", ({ admin, w }) => admin.post(`/admin/sales-channels/${w.channel}/products`, { add: [w.product2] })],
  ["channel: created", async ({ admin, w, n }) => {
    w.newChannel = (await admin.post("/admin/sales-channels", { name: `Channel ${n}` })).sales_channel.id
  }],
  ["key: channel more", ({ admin, w }) => admin.post(`/admin/api-keys/${w.apiKey}/sales-channels`, { add: [w.newChannel] })],
  ["key: channel less", ({ admin, w }) => admin.post(`/admin/api-keys/${w.apiKey}/sales-channels`, { remove: [w.newChannel] })],
  ["channel: deleted", ({ admin, w }) => admin.delete(`/admin/sales-channels/${w.newChannel}`)],
  ["store: currencies", async ({ admin, w, n }) => {
    const supported = ["eur", "usd", "gbp", ...(n % 2 ? ["sek"] : [])]
    await admin.post(`/admin/stores/${w.store}`, { supported_currencies: supported.map((code) => ({ currency_code: code, is_default: code === "eur" })) })
  }],
  // Regions, taxes, shipping.
  ["region: name", ({ admin, w, n }) => admin.post(`/admin/regions/${w.region}`, { name: `Region ${n}` })],
  ["region: without automatic taxes", ({ admin, w }) => admin.post(`/admin/regions/${w.region}`, { automatic_taxes: false })],
  ["region: with automatic taxes", ({ admin, w }) => admin.post(`/admin/regions/${w.region}`, { automatic_taxes: true })],
  ["region: created", async ({ admin, w, n }) => {
    w.newRegion = (await admin.post("/admin/regions", { name: `Region ${n}`, currency_code: "usd", countries: ["ca"], payment_providers: ["pp_system_default"] })).region.id
  }],
  ["region: deleted", ({ admin, w }) => admin.delete(`/admin/regions/${w.newRegion}`)],
  ["tax rate: changed", ({ admin, w, n }) => admin.post(`/admin/tax-rates/${w.taxRate}`, { rate: 10 + (n % 9) })],
  ["tax rate: created", async ({ admin, w, n }) => {
    w.newRate = (await admin.post("/admin/tax-rates", { tax_region_id: w.taxRegion, name: `Rate ${n}`, rate: 5, code: `r${n}`, rules: [{ reference: "product", reference_id: w.product }] })).tax_rate.id
  }],
  ["tax rate: deleted", ({ admin, w }) => admin.delete(`/admin/tax-rates/${w.newRate}`)],
  ["shipping option: name", ({ admin, w, n }) => admin.post(`/admin/shipping-options/${w.shippingOption}`, { name: `Shipping ${n}` })],
  ["shipping option: price", async ({ admin, w, n }) => {
    const { shipping_option: option } = await admin.get(`/admin/shipping-options/${w.shippingOption}?fields=*prices,*prices.price_rules`)
    const eur = option.prices.find((one) => one.currency_code === "eur" && !one.price_rules?.length)
    await admin.post(`/admin/shipping-options/${w.shippingOption}`, { prices: [{ id: eur.id, amount: 5 + (n % 20), currency_code: "eur" }] })
  }],
  ["shipping option: created", async ({ admin, w, n }) => {
    const { shipping_option: model } = await admin.get(`/admin/shipping-options/${w.shippingOption}?fields=*,*type`)
    const made = await admin.post("/admin/shipping-options", {
      name: `New shipping ${n}`, service_zone_id: model.service_zone_id, shipping_profile_id: model.shipping_profile_id,
      provider_id: "manual_manual", price_type: "flat", prices: price(3),
      type: { label: "New", description: "new", code: `new-${n}` },
      rules: [{ attribute: "enabled_in_store", value: "true", operator: "eq" }, { attribute: "is_return", value: "false", operator: "eq" }],
    })
    w.newShipping = made.shipping_option.id
  }],
  ["shipping option: deleted", ({ admin, w }) => admin.delete(`/admin/shipping-options/${w.newShipping}`)],
  ["return reason: created", async ({ admin, w, n }) => {
    w.reason = (await admin.post("/admin/return-reasons", { value: `reason-${n}`, label: `Reason ${n}` })).return_reason.id
  }],
  ["return reason: deleted", ({ admin, w }) => admin.delete(`/admin/return-reasons/${w.reason}`)],
  // What a shopper sees in the cart.
  ["promotion: created after its code was tried", { cart: async ({ admin, n }) => {
    await admin.post("/admin/promotions", {
      code: `LATE${n}`, type: "standard", status: "active",
      application_method: { type: "percentage", target_type: "order", allocation: "across", value: 10, currency_code: "eur" },
    })
    return `LATE${n}`
  } }],
  ["customer group: renamed", ({ admin, w, n }) => admin.post(`/admin/customer-groups/${w.group}`, { name: `Group ${n}` })],
]

function newProduct(w, n, status) {
  return {
    title: `aaa new ${n}`, handle: `new-${n}`, status, shipping_profile_id: w.profile, sales_channels: [{ id: w.channel }],
    categories: [{ id: w.category }], collection_id: w.collection,
    options: [{ title: "Size", values: ["S"] }],
    variants: [{ title: "S", sku: `NEW-${n}`, options: { Size: "S" }, prices: price(10), manage_inventory: false }],
  }
}
