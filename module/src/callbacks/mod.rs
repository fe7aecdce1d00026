//! The roof: what calls the module. Each callback is a few lines: guard, cast, call safe code.

mod datatype;
mod events;
mod info;
mod load;
mod slots;
