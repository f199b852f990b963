"""A small notebook of solutions with everything that a real one has, and no need of PyTorch."""

from nbformat import NotebookNode

from tests.course.author import notebook_of

TOY = '''# 99 A toy

What you build.

```python
import time


def check(name, answer):
    assert answer(2) == 4, f"{name}: not yet"
    print(f"{name}: right")
```

## 1 Numbers

<!-- split -->

### Exercise: Doubling

*implement, difficulty 1 of 3, 5 minutes, 3 points*

<!-- cell id=double-answer kind=answer -->
```python
def double(number):
    """Twice the number."""
    ### BEGIN SOLUTION
    doubled_number = number + number
    return doubled_number
    ### END SOLUTION
```

<!-- cell id=double-check kind=check points=3 -->
```python
check("double", double)
```

<!-- cell id=double-show tags=show -->
```python
print(double(21))
```

<details><summary>Hint</summary>

Add it to itself.

</details>

<!-- split -->

### Exercise: Why

*read the curve, difficulty 1 of 3, 5 minutes, 2 points*

<!-- cell id=why-answer kind=written points=2 -->
### BEGIN SOLUTION
Because a sum of two equals is twice the one.
### END SOLUTION

<!-- cell id=last -->
```python
time.time() > 0
```
'''


def toy(text: str = TOY, *changes: tuple[str, str]) -> NotebookNode:
    """The notebook of a text, with some of it replaced."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return notebook_of(text, "99_toy")
