//! Visitors: what people do in a store, over HTTP, measured from outside.

mod client;
mod published;
mod recorder;
mod visit;

pub use client::{Client, Reply};
pub use published::{PUBLISHED, Published};
pub use recorder::{Figures, Recorder};
pub use visit::{Mix, RESERVED, Visitor};

/// What keeps a visitor from an answer.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The endpoints of the published table, as their routes are written, in its order.
pub const ENDPOINTS: [&str; 15] = [
    "GET /store/products",
    "GET /store/product-categories",
    "GET /store/products/{id}",
    "POST /store/carts/{id}/line-items",
    "POST /store/carts/{id}/shipping-methods",
    "POST /store/carts/{id}/promotions",
    "GET /store/carts/{id}",
    "POST /store/carts/{id}",
    "POST /store/carts",
    "POST /store/carts/{id}/complete",
    "GET /store/orders/{id}",
    "GET /store/regions",
    "GET /store/shipping-options",
    "POST /store/payment-collections",
    "POST /store/payment-collections/{id}/payments",
];
