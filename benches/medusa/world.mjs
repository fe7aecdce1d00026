// What the check works on: ids of the seeded shop, and a few things of its own that start empty.
export async function makeWorld(admin, seed, random, n) {
  const products = [seed.products[random.below(12)], seed.products[12 + random.below(12)]]
  const variants = []
  for (const id of products) variants.push((await admin.get(`/admin/products/${id}?fields=handle,*variants`)).product)
  const { regions } = await admin.get("/admin/regions?limit=20")
  const region = seed.regions[0].id
  const { product_category: emptyCategory } = await admin.post("/admin/product-categories", { name: `Empty ${n}`, is_active: true, is_internal: false })
  const { product_category: category } = await admin.post("/admin/product-categories", { name: `Own ${n}`, handle: `own-${n}`, is_active: true, is_internal: false })
  await admin.post(`/admin/product-categories/${category.id}/products`, { add: [seed.products[20], seed.products[21]] })
  const { collection: emptyCollection } = await admin.post("/admin/collections", { title: `Empty ${n}`, handle: `empty-${n}` })
  const { collections } = await admin.get("/admin/collections?limit=5")
  const { product_tag: tag } = await admin.post("/admin/product-tags", { value: `own-${n}` })
  const { product_type: type } = await admin.post("/admin/product-types", { value: `own-${n}` })
  const { customer_group: group } = await admin.post("/admin/customer-groups", { name: `Own ${n}` })
  const { inventory_items: items } = await admin.get(`/admin/inventory-items?limit=5&fields=id,*location_levels&sku=${encodeURIComponent(variants[0].variants[0].sku)}`)
  const { stock_locations: locations } = await admin.get("/admin/stock-locations?limit=5")
  const location = items[0].location_levels[0].location_id
  const { tax_regions: taxRegions } = await admin.get("/admin/tax-regions?country_code=de&fields=*tax_rates")
  const { shipping_options: options } = await admin.get("/admin/shipping-options?limit=20")
  const { api_keys: keys } = await admin.get("/admin/api-keys?type=publishable&limit=20")
  const { stores } = await admin.get("/admin/stores")
  const cart = await newCart(admin, seed, region, variants[0].variants[0].id)
  return {
    product: products[0], product2: products[1], draft: "prod_none", handle: `wanted-${n}`, word: encodeURIComponent("aaa new"),
    variant: variants[0].variants[0].id, variant2: variants[1].variants[0].id,
    region, region2: regions.find(({ id }) => id !== region).id,
    category: category.id, categoryHandle: category.handle, emptyCategory: emptyCategory.id,
    collection: collections.find(({ id }) => id !== emptyCollection.id).id, emptyCollection: emptyCollection.id,
    tag: tag.id, type: type.id, group: group.id, item: items[0].id, location,
    location2: locations.find(({ id }) => id !== location).id,
    taxRegion: taxRegions[0].id, taxRate: taxRegions[0].tax_rates[0].id,
    shippingOption: seed.shipping_options[0] ?? options[0].id, apiKey: keys.find(({ token }) => token === seed.publishable_key).id,
    store: stores[0].id, channel: seed.sales_channel_id, profile: seed.shipping_profile_id, cart,
  }
}

const ADDRESS = { first_name: "T", last_name: "C", address_1: "S 1", city: "C", postal_code: "12345", country_code: "de", phone: "1" }

export async function newCart(server, seed, region, variant) {
  const { cart } = await server.post("/store/carts", { region_id: region, sales_channel_id: seed.sales_channel_id, email: "t@example.com", shipping_address: ADDRESS, billing_address: ADDRESS })
  if (variant) await server.post(`/store/carts/${cart.id}/line-items`, { variant_id: variant, quantity: 1 })
  return cart.id
}

/** A whole order of one variant. */
export async function order(server, seed, region, variant) {
  const cart = await newCart(server, seed, region, variant)
  const { shipping_options: options } = await server.get(`/store/shipping-options?cart_id=${cart}`)
  await server.post(`/store/carts/${cart}/shipping-methods`, { option_id: options[0].id })
  const { payment_collection: payment } = await server.post("/store/payment-collections", { cart_id: cart })
  await server.post(`/store/payment-collections/${payment.id}/payment-sessions`, { provider_id: "pp_system_default" })
  const { order: made } = await server.post(`/store/carts/${cart}/complete`)
  return made.id
}
