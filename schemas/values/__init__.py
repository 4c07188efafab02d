"""Values of events: columns of one or several types, and what lists, structs and maps hold."""
