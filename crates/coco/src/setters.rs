//! Methods that set one field of a configuration. With them a configuration can get new fields without breaking its users.

/// Writes for each field a method of its name that takes the configuration and gives it back changed.
macro_rules! setters {
    ($config:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        impl $config {
            $(
                #[doc = concat!("Sets [`Self::", stringify!($field), "`](field@Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $kind) -> Self {
                    self.$field = $field.into();
                    self
                }
            )*
        }
    };
}
pub(crate) use setters;
