package send

import "github.com/pastenet/paste/pasteapi/internal/frames"

// Visit shows the frames that wait to be sent.
func (s *Sender) Visit(v frames.Visit) {
	for q := range s.blocked {
		for _, i := range q.items {
			if i.copied == nil {
				v(frames.Waiting, i.frame)
			}
		}
	}
}
