"""Pipeline customers' URLs: at once when a wakeup tells of something, again and again when that failed."""
