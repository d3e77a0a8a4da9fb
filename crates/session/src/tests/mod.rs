//! The world of two sessions and one faulty pipe.
