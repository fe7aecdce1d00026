// What a visitor asks for, as the starter storefront does, and what the back office writes meanwhile. `call` carries
// out one request under a name; the same random numbers make the same visits on every server.
const LIST_FIELDS = encodeURIComponent("*variants.calculated_price,+variants.inventory_quantity,+metadata,+tags")
const CATEGORY_FIELDS = "*category_children,*parent_category,*parent_category.parent_category"
const COUNTRY = { eur: "de", usd: "us", gbp: "gb" }
const PAGE = 12
const BROWSED = 3

const address = (country) => ({
  first_name: "Test", last_name: "Customer", address_1: "Street 1", city: "City", postal_code: "12345", country_code: country, phone: "+4512345678",
})

/** A few of a list carry most of the views. */
const popular = (random, count) => Math.min(count - 1, Math.floor(Math.pow(count, random.next()) - 1))

/** One visit: three lists and product pages; with the chance `convert` an order. */
export async function visit({ call, seed, random, n, convert }) {
  const chance = random.next()
  const region = seed.regions[chance < 0.6 ? 0 : chance < 0.8 ? 1 : 2]
  await call("GET /store/regions", "GET", "/store/regions")
  await call("GET /store/product-categories", "GET", `/store/product-categories?limit=100&fields=${CATEGORY_FIELDS}`)
  let shown = []
  for (let i = 0; i < BROWSED; i += 1) {
    const offset = popular(random, Math.min(20, Math.ceil(seed.products.length / PAGE))) * PAGE
    const list = await call("GET /store/products", "GET", `/store/products?limit=${PAGE}&offset=${offset}&region_id=${region.id}&fields=${LIST_FIELDS}`)
    const products = list?.products ?? []
    const id = random.next() < 0.5 && products.length ? random.pick(products).id : seed.products[popular(random, seed.products.length)]
    const page = await call("GET /store/products/:id", "GET", `/store/products/${id}?region_id=${region.id}&fields=${LIST_FIELDS}`)
    shown = page?.product ? [page.product] : products
  }
  if (random.next() < convert) await order({ call, seed, random, n, region, shown })
}

async function order({ call, seed, random, n, region, shown }) {
  const made = await call("POST /store/carts", "POST", "/store/carts", { region_id: region.id, sales_channel_id: seed.sales_channel_id })
  if (!made) return
  const cart = `/store/carts/${made.cart.id}`
  for (let line = 0; line < 2; line += 1) {
    const variant = line === 0 ? random.pick(shown[0].variants).id : seed.variants[popular(random, seed.variants.length)]
    await call("POST /store/carts/:id/line-items", "POST", `${cart}/line-items`, { variant_id: variant, quantity: 1 + (n % 3) })
  }
  await call("GET /store/carts/:id", "GET", cart)
  const to = address(COUNTRY[region.currency_code])
  await call("POST /store/carts/:id", "POST", cart, { email: `c${n}@example.com`, shipping_address: to, billing_address: to })
  await call("POST /store/carts/:id/promotions", "POST", `${cart}/promotions`, { promo_codes: [seed.promotions[popular(random, seed.promotions.length)]] })
  const offered = await call("GET /store/shipping-options", "GET", `/store/shipping-options?cart_id=${made.cart.id}`)
  const options = offered?.shipping_options ?? []
  if (options.length === 0) throw new Error(`no shipping options in ${region.name}`)
  await call("POST /store/carts/:id/shipping-methods", "POST", `${cart}/shipping-methods`, { option_id: options[n % options.length].id })
  const { payment_collection: payment } = await call("POST /store/payment-collections", "POST", "/store/payment-collections", { cart_id: made.cart.id })
  await call("POST /store/payment-collections/:id/payment-sessions", "POST", `/store/payment-collections/${payment.id}/payment-sessions`, { provider_id: "pp_system_default" })
  await call("GET /store/carts/:id", "GET", cart)
  const done = await call("POST /store/carts/:id/complete", "POST", `${cart}/complete`, {})
  if (done?.type !== "order") throw new Error(`the cart was not completed: ${JSON.stringify(done).slice(0, 300)}`)
  await call("GET /store/orders/:id", "GET", `/store/orders/${done.order.id}`)
}

/** What the back office works on. */
export async function openOffice(call) {
  const stock = await call("-", "GET", "/admin/inventory-items?limit=200&fields=id,*location_levels")
  const levels = stock.inventory_items.flatMap((item) => item.location_levels.map((level) => ({ item: item.id, location: level.location_id })))
  const { product_categories: categories } = await call("-", "GET", "/admin/product-categories?limit=20&fields=id")
  const { shipping_options: options } = await call("-", "GET", "/admin/shipping-options?limit=20&fields=id")
  return { levels, categories, options }
}

/** One write of the back office, each time another kind. */
export async function write({ call, seed, random, n, office }) {
  const product = () => seed.products[popular(random, seed.products.length)]
  const kinds = [
    () => call("POST /admin/products/:id (title)", "POST", `/admin/products/${product()}`, { subtitle: `edited ${n}` }),
    async () => {
      const id = product()
      const found = await call("GET /admin/products/:id", "GET", `/admin/products/${id}?fields=id,variants.id,*variants.prices`)
      const [variant] = found.product.variants
      const prices = variant.prices.map(({ id: price, amount, currency_code }) => ({ id: price, amount: amount + 1, currency_code }))
      await call("POST /admin/products/:id/variants/:id (price)", "POST", `/admin/products/${id}/variants/${variant.id}`, { prices })
    },
    () => {
      const { item, location } = random.pick(office.levels)
      return call("POST /admin/inventory-items/:id/location-levels/:id", "POST", `/admin/inventory-items/${item}/location-levels/${location}`, { stocked_quantity: 1_000_000 + n })
    },
    () => call("POST /admin/product-categories/:id", "POST", `/admin/product-categories/${random.pick(office.categories).id}`, { description: `edited ${n}` }),
    () => call("POST /admin/promotions", "POST", "/admin/promotions", {
      code: `NEW${Date.now()}`, type: "standard", status: "active", application_method: { type: "percentage", target_type: "order", value: 10 },
    }),
    () => call("POST /admin/products (create)", "POST", "/admin/products", {
      title: `New ${n}`, status: "published", shipping_profile_id: seed.shipping_profile_id, sales_channels: [{ id: seed.sales_channel_id }],
      options: [{ title: "Size", values: ["S", "M"] }],
      variants: ["S", "M"].map((size) => ({ title: size, sku: `N${Date.now()}${n}${size}`, options: { Size: size }, prices: [{ amount: 10, currency_code: "eur" }] })),
    }),
    () => call("POST /admin/shipping-options/:id", "POST", `/admin/shipping-options/${random.pick(office.options).id}`, { name: `Option ${n}` }),
  ]
  await kinds[n % kinds.length]()
}

/** The same reads again and again: what a hit is worth when nothing invalidates it. */
export function hotReads(seed) {
  const region = seed.regions[0].id
  return {
    "hot GET /store/regions": "/store/regions",
    "hot GET /store/product-categories": "/store/product-categories?limit=100",
    "hot GET /store/products (storefront fields)": `/store/products?limit=${PAGE}&region_id=${region}&fields=${LIST_FIELDS}`,
    "hot GET /store/products (default fields)": `/store/products?limit=${PAGE}&region_id=${region}`,
    "hot GET /store/products/:id": `/store/products/${seed.products[0]}?region_id=${region}&fields=${LIST_FIELDS}`,
  }
}
