"""Values of events: columns of one or several types, what lists, structs and maps hold, and digits that no float has.

A number is read in one of two ways. In an ordinary field an integer of 64 bits is exact and any other number is the
nearest float (`single.plain`). In a field that distinguishes events (a key, a declared id, a field by which rules
correlate) two numbers that differ must stay two: there it is an integer, the float whose shortest text it is, or the
text of all its digits (`single.distinguishing`; as a key or an id, `single.key_text`). Which fields these are only the
contract of a stream says (`schemas.contract.Contract.exact`; `Contract.exact_columns` adds the fields that are declared
to hold integers or text, in which a float would lose digits as well). So every way by which events come has a form that
keeps the digits until the contract is known, and one function that reads it in both ways:

=================== =========================================== =====================================================
events come as      until then                                  read by
=================== =========================================== =====================================================
mappings            the Python values                           `schemas.contract.read_event`
JSON and CSV        text (`single.number_text` writes a number  `schemas.json.text.loads`; a record whose floats tell
                    so that nothing is lost)                    events apart or are integers (`contract.needs_digits`)
                                                                and that has more digits is read again by
                                                                `json.text.loads_exact`, whose `json.text.fraction`
                                                                makes a `Decimal` of them
columns of Arrow    the columns (`foreign.kept_column`)         `foreign.plain_column` and `foreign.exact_column`, of
                                                                which `schemas.arrow.columns.frame_columns` chooses:
                                                                for `decode_frame` and `Frame.settled`
columns of Python   `foreign.MIXED_EXACT`                       the same
=================== =========================================== =====================================================

Bytes are text or hexadecimal wherever they stand (`single.bytes_text`).
"""
