// Package kvd is a key-value store behind HTTP/1.1 on PASTE's rings, the
// counterpart of upstream's pKVS.
//
//	PUT    /k/{key}                      store the body: 201 created, 204 replaced
//	GET    /k/{key}                      200 with the value, 404
//	HEAD   /k/{key}                      the same without the value
//	DELETE /k/{key}                      204, 404
//	GET    /k?prefix=P&after=K&limit=N   keys, one per line, in order
//	POST   /k                            a batch: several changes, all or none
//
// docs/kv.md describes it for users.
//
// A key is 1 to 255 bytes, any bytes, percent-encoded in the request's target
// where they are not letters, digits or one of "-._~!$&'()*+,;=:@/"; keys that
// are listed are encoded so that they may stand in a path, and behind "after=". A list has at most limit keys (1000 by
// default, 10000 at most); a longer one is continued with after set to the last
// key. A list that does not fit 16 KiB is made while it is sent: it has each key
// that was there all the time, and may have those that came or went meanwhile.
// Bad keys and queries get 400, keys that are too long 414, bodies that are
// too large 413, and 507 says that the pool is full: everything stored is still
// served, and DELETE makes room.
//
// Values have entity tags (ETag). If-Match and If-None-Match are honoured for PUT,
// GET, HEAD and DELETE, by 412 or 304, and nothing comes between the look at the
// value and the change. What is not supported and would change more than the
// client wants is refused: If-Unmodified-Since by 412, as no times are kept, and
// Content-Range, and conditions on lists, by 501.
//
// A value stays in the buffers that the NIC received it in. In front of it, where
// the request's header was (or, if it has a type or a time and there is no room, in a
// frame of its own), goes the header of the answer that a GET will get,
// and in front of that the head of the log's record; so one fragment makes both
// the record and, later, the whole answer, sent from where it lies. A value whose
// checksum is wrong is answered with 500, and the others are served.
//
// Answers leave when what they speak of is durable: see package httpd.
package kvd
