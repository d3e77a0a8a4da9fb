//! The wire forms: prost structs, one for each memory form. Version rule: fields are added with new numbers and never
//! reused; an unknown field is skipped.
