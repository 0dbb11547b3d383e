// The image that the fake compiler makes and the fake driver loads: what was compiled for what.

#ifndef IMAGE_H
#define IMAGE_H

#define IMAGE_FORMAT "FOREBAY FAKE IMAGE %63s %63s"

#endif
