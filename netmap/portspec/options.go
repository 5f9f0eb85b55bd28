package portspec

import "strings"

// option is one that can follow an @.
type option struct {
	name    string
	deflt   string // the key that "@name=value" means; "" for none
	must    string // the key that must be given
	keys    []key
	refusal string // not to be had: why
}

// key is one of an option's. Two keys of one place are a general and a special
// one: the special one counts, wherever it stands.
type key struct {
	name  string
	most  int // numbers from 1 to most (from 0 if zero is set); 0: a text
	zero  bool
	cover []string // keys that it is short for
	field func(*Spec) (*int, *string)
}

const kloop = "netmap's kernel loop, which syncs a port's rings for a virtual machine, is not here: sync them from a thread"

var options = []option{
	{name: "share", deflt: "port", must: "port", keys: []key{{name: "port", field: text(func(s *Spec) *string { return &s.Share })}}},
	{name: "extmem", deflt: "file", must: "file", keys: []key{
		{name: "file", field: text(func(s *Spec) *string { return &s.extmem().File })},
		extmemKey("if-num", func(e *Extmem) *int { return &e.IfNum }),
		extmemKey("if-size", func(e *Extmem) *int { return &e.IfSize }),
		extmemKey("ring-num", func(e *Extmem) *int { return &e.RingNum }),
		extmemKey("ring-size", func(e *Extmem) *int { return &e.RingSize }),
		extmemKey("buf-num", func(e *Extmem) *int { return &e.BufNum }),
		extmemKey("buf-size", func(e *Extmem) *int { return &e.BufSize }),
	}},
	{name: "conf", deflt: "rings", keys: []key{
		{name: "rings", most: maxRings, cover: []string{"tx-rings", "rx-rings"}},
		{name: "host-rings", most: maxRings, cover: []string{"host-tx-rings", "host-rx-rings"}},
		{name: "slots", most: maxSlots, cover: []string{"tx-slots", "rx-slots"}},
		confKey("tx-rings", maxRings, func(c *Conf) *int { return &c.TxRings }),
		confKey("rx-rings", maxRings, func(c *Conf) *int { return &c.RxRings }),
		confKey("host-tx-rings", maxRings, func(c *Conf) *int { return &c.HostTxRings }),
		confKey("host-rx-rings", maxRings, func(c *Conf) *int { return &c.HostRxRings }),
		confKey("tx-slots", maxSlots, func(c *Conf) *int { return &c.TxSlots }),
		confKey("rx-slots", maxSlots, func(c *Conf) *int { return &c.RxSlots }),
	}},
	{name: "offset", deflt: "initial", must: "initial", keys: []key{
		{name: "initial", most: 1<<16 - 1, zero: true, field: number(func(s *Spec) *int { return &s.offset().Initial })},
		{name: "bits", most: 64, field: number(func(s *Spec) *int { return &s.offset().Bits })},
	}},
	{name: "csb", refusal: "CSB, the control block that netmap shares with a virtual machine's driver, is not here: head and cur in the ring are all there is"},
	{name: "kloop", refusal: kloop},
	{name: "sync-kloop", refusal: kloop},
	{name: "sync-kloop-eventfds", refusal: kloop},
	{name: "sync-kloop-mode", refusal: kloop},
	{name: "ptnetmap", refusal: foreign[0].sentence},
}

func (s *Spec) extmem() *Extmem {
	if s.Extmem == nil {
		s.Extmem = &Extmem{}
	}
	return s.Extmem
}

func (s *Spec) offset() *Offset {
	if s.Offset == nil {
		s.Offset = &Offset{}
	}
	return s.Offset
}

func text(f func(*Spec) *string) func(*Spec) (*int, *string) {
	return func(s *Spec) (*int, *string) { return nil, f(s) }
}

func number(f func(*Spec) *int) func(*Spec) (*int, *string) {
	return func(s *Spec) (*int, *string) { return f(s), nil }
}

func confKey(name string, most int, f func(*Conf) *int) key {
	return key{name: name, most: most, field: number(func(s *Spec) *int { return f(&s.Conf) })}
}

func extmemKey(name string, f func(*Extmem) *int) key {
	return key{name: name, most: 1 << 30, field: number(func(s *Spec) *int { return f(s.extmem()) })}
}

// aliasOf says whether the key has no place of its own.
func (k *key) aliasOf(option) bool { return k.cover != nil }

// get is the value as it is written, "" if it was not given.
func (k *key) get(s *Spec) string {
	c := *s // looking must not make an option
	if c.Extmem != nil {
		e := *c.Extmem
		c.Extmem = &e
	}
	n, t := k.field(&c)
	if t != nil {
		return *t
	}
	if k.name == "initial" && s.Offset != nil && *n == 0 {
		return "0"
	}
	return itoa(*n)
}

func (o *option) find(name string) *key {
	for i := range o.keys {
		if o.keys[i].name == name {
			return &o.keys[i]
		}
	}
	return nil
}

func (p *parser) options() error {
	seen := map[string]bool{}
	for p.take('@') {
		at := p.at
		name := p.until(":=@")
		if name == "" {
			return p.fail(at, "an option's name or the memory's number follows the @")
		}
		o := findOption(strings.ReplaceAll(name, "_", "-"))
		switch {
		case o == nil:
			return p.fail(at, "unknown option %q; there are %s", name, optionNames())
		case o.refusal != "":
			return p.refuse(at, o.refusal)
		case seen[o.name]:
			return p.fail(at, "option %s is given twice", o.name)
		}
		seen[o.name] = true
		if err := p.option(o); err != nil {
			return err
		}
	}
	return nil
}

// value is a key's, and where it stands.
type value struct {
	at   int
	text string
}

// value reads one up to a character.
func (p *parser) value(stops string) value {
	at := p.at
	return value{at, p.until(stops)}
}

func (p *parser) option(o *option) error {
	at := p.at
	given := map[string]value{}
	switch {
	case p.take('='):
		given[o.deflt] = p.value("@")
		if given[o.deflt].text == "" {
			return p.fail(p.at, "option %s has no value", o.name)
		}
	case p.take(':'):
		if err := p.keys(o, given); err != nil {
			return err
		}
	default:
		return p.fail(at, "option %s has no value; it is written %s:KEY=VALUE,…", o.name, o.name)
	}
	if _, ok := given[o.must]; o.must != "" && !ok {
		return p.fail(at, "option %s needs the key %s", o.name, o.must)
	}
	for i := range o.keys {
		k := &o.keys[i]
		v, ok := given[k.name]
		if !ok {
			continue
		}
		if err := p.set(o, k, v, given); err != nil {
			return err
		}
	}
	return nil
}

// keys reads key=value,….
func (p *parser) keys(o *option, given map[string]value) error {
	for {
		at := p.at
		name := strings.ReplaceAll(p.until("=,@"), "_", "-")
		k := o.find(name)
		if k == nil {
			return p.fail(at, "option %s has no key %q; it has %s", o.name, p.text[at:p.at], o.keyNames())
		}
		if _, ok := given[name]; ok {
			return p.fail(at, "key %s is given twice", name)
		}
		if !p.take('=') {
			return p.fail(p.at, "key %s has no value", name)
		}
		given[name] = p.value(",@")
		if given[name].text == "" {
			return p.fail(p.at, "key %s has no value", name)
		}
		if !p.take(',') {
			return nil
		}
	}
}

// set stores a value.
func (p *parser) set(o *option, k *key, v value, given map[string]value) error {
	if k.most == 0 {
		_, t := k.field(&p.spec)
		*t = v.text
		return nil
	}
	least := 1
	if k.zero {
		least = 0
	}
	n, err := p.inRange(v.at, v.text, k.name, least, k.most)
	if err != nil {
		return err
	}
	for _, name := range k.cover {
		if _, ok := given[name]; !ok {
			at, _ := o.find(name).field(&p.spec)
			*at = n
		}
	}
	if k.field != nil {
		at, _ := k.field(&p.spec)
		*at = n
	}
	return nil
}

func findOption(name string) *option {
	for i := range options {
		if options[i].name == name {
			return &options[i]
		}
	}
	return nil
}

func optionNames() string {
	var names []string
	for _, o := range options {
		if o.refusal == "" {
			names = append(names, o.name)
		}
	}
	return strings.Join(names, ", ")
}

func (o *option) keyNames() string {
	var names []string
	for _, k := range o.keys {
		names = append(names, k.name)
	}
	return strings.Join(names, ", ")
}
